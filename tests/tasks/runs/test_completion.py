"""A complete run is recognized from its files; whatever changes, the run itself looks again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overedit.tasks.runs import completion
from overedit.tasks.runs.completion import completed_run, write_completion
from overedit.tasks.runs.run import Run
from tests.support.synthetic_run import RUN, fill


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """A configuration whose run is complete: rows, a checkpoint, a report, and one input file."""
    run = Run(name=RUN, home=tmp_path / "home", model="m", dataset="d")
    fill(run.home / "warehouse", by_count=False).publish()
    for path, text in (
        (run.folder / "ft-m" / "order-0" / "00000001" / "weights.safetensors", "tensors"),
        (run.folder / "run.json", "{}"),
        (run.report, "a page"),
        (run.report.with_suffix(".png"), "a picture"),
        (tmp_path / "rows.json", "[]"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    asked = {"name": RUN, "home": str(run.home), "dataset": {"name": "file", "path": str(tmp_path / "rows.json")}}
    write_completion(run, asked)
    return asked


def test_a_complete_run_is_recognized(content: dict[str, Any]) -> None:
    found = completed_run(content)
    assert found is not None
    assert (found.name, found.model, found.dataset) == (RUN, "m", "d")


def test_where_it_is_done_and_the_spelling_of_home_do_not_count(
    content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(content["home"])
    assert completed_run(content | {"home": ".", "execution": {"engine": "ray"}}) is not None


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b" ")


def flip_keeping_the_time(path: Path) -> None:
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    os.utime(path, ns=times)


@pytest.mark.parametrize("change", [append, flip_keeping_the_time, Path.unlink])
@pytest.mark.parametrize(
    "which",
    [
        f"runs/{RUN}/ft-m/order-0/00000001/weights.safetensors",
        f"runs/{RUN}/run.json",
        f"runs/{RUN}/complete.json",
        f"reports/{RUN}.html",
        f"reports/{RUN}.png",
        f"warehouse/outcomes/{RUN}/**/*.parquet",
    ],
)
def test_a_file_of_the_run_that_changed_is_noticed(
    content: dict[str, Any], which: str, change: Callable[[Path], None]
) -> None:
    path = next(Path(content["home"]).glob(which))
    change(path)
    assert completed_run(content) is None


def test_a_row_file_more_is_noticed(content: dict[str, Any]) -> None:
    (Path(content["home"]) / "warehouse" / "outcomes" / RUN / "more.parquet").touch()
    assert completed_run(content) is None


def test_another_runs_rows_do_not_matter(content: dict[str, Any]) -> None:
    other = Path(content["home"]) / "warehouse" / "outcomes" / "another"
    other.mkdir()
    (other / "x.parquet").touch()
    assert completed_run(content) is not None


def test_a_changed_input_setting_or_package_is_noticed(
    content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert completed_run(content | {"turn_size": 7}) is None
    monkeypatch.setattr(completion, "versions", lambda: {"torch": "0"})
    assert completed_run(content) is None
    monkeypatch.undo()
    append(Path(content["dataset"]["path"]))
    assert completed_run(content) is None


def test_a_changed_file_of_overedit_is_noticed(content: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "own_files_digest", lambda: "another digest")
    assert completed_run(content) is None


@pytest.mark.parametrize(
    "wrong",
    [{}, {"name": 3}, {"name": "../x"}, {"name": RUN, "home": 5}, {"name": "missing"}, {"name": RUN, "home": None}],
)
def test_what_is_no_configuration_is_left_to_the_run(content: dict[str, Any], wrong: dict[str, Any]) -> None:
    assert completed_run(wrong) is None
