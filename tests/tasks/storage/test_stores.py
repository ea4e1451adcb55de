"""Which URLs are accepted as homes, and what is said where a store cannot be used."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from overedit.tasks.storage.stores import as_url, check_reachable, open_store, url_fault
from overedit.tasks.storage.working_copy import is_there, local_home, sizes, url_of

SECRET = "wJalrXUtnFEMI"


@pytest.mark.parametrize(
    "spelling", ["s3://bucket/a/b", "s3://bucket/a/b/", "S3://bucket/a/b", Path("s3://bucket/a/b")]
)
def test_a_url_has_one_spelling(spelling: str | Path) -> None:
    assert as_url(spelling) == "s3://bucket/a/b"
    assert url_fault("s3://bucket/a/b") is None


@pytest.mark.parametrize("folder", ["/data/results", "results", ".", "a:b", "C:/data"])
def test_a_folder_is_no_url(folder: str) -> None:
    assert as_url(folder) is None
    assert local_home(folder) == Path(folder)
    assert url_of(Path(folder) / "runs") is None


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://host/x", "a URL of 'http'; accepted: a folder, or a URL such as s3://BUCKET/FOLDER"),
        ("file:///data", "a URL of 'file'; accepted"),
        ("s3://", "no place for results"),
        (Path("s3://"), "no place for results"),
        ("s3://bucket/../x", "no place for results"),
        ("s3://bucket/a*", "no place for results"),
        ("s3://bucket/" + "x" * 150, "of up to 150 characters"),
    ],
)
def test_other_urls_are_refused_with_what_is_accepted(url: str | Path, fault: str) -> None:
    with pytest.raises(ValueError, match=r"^home: ") as refused:
        local_home(url)
    assert fault in str(refused.value)


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="a URL with credentials, which belong into environment variables") as refused:
        local_home(f"s3://AKIA:{SECRET}@bucket/x")
    assert SECRET not in str(refused.value)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(ValueError, match=r"s3://bucket/x needs a package .* pip install 'overedit\[s3\]'"):
        open_store("s3://bucket/x")


def test_a_store_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    s3fs = pytest.importorskip("s3fs")
    settings = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1", "AWS_SECRET_ACCESS_KEY": SECRET}
    for name, value in {**settings, "AWS_ACCESS_KEY_ID": "key", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with pytest.raises(OSError, match="s3://nowhere/x cannot be used: ") as refused:
        check_reachable("s3://nowhere/x")
    assert SECRET not in str(refused.value)


def test_objects_that_would_lead_out_of_a_folder_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OVEREDIT_CACHE", str(tmp_path))
    home = local_home("memory://leads-out/x")
    files, _ = open_store("memory://leads-out/x")
    files.pipe({"/leads-out/x/../../etc/passwd": b"1", "/leads-out/x/good": b"12"})
    assert sizes(home) == {"good": 2}
    assert is_there(home / "good")
