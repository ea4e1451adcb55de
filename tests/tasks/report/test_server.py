"""The server of reports and site: what is in the two folders, and nothing else of the machine."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from overedit.tasks.report.server import report_link, reports_server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("served") / "home"
    for name in ("reports/r.html", "reports/a b.html", "site/index.html", "site/data/runs.js", "warehouse/w.parquet"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    (home / "reports" / ".hidden.html").write_text("hidden")
    (home / "reports" / "link.html").symlink_to(home / "warehouse" / "w.parquet")
    (home / "reports" / "loop.html").symlink_to(home / "reports" / "loop.html")
    (home / "reports" / "away").symlink_to(home / "warehouse")
    os.mkfifo(home / "reports" / "pipe.html")
    (home.parent / "secret.html").write_text("secret")
    return home


@pytest.fixture(scope="module")
def port(home: Path) -> Iterator[int]:
    with reports_server(home, 0) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def ask(port: int, path: str, *, method: str = "GET", host: str = "127.0.0.1") -> tuple[int, str, dict[str, str]]:
    """Status, text and headers of an answer; the path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, dict(answer.getheaders())


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/reports/r.html", "reports/r.html"),
        ("/reports/r.html?theme=dark", "reports/r.html"),
        ("/reports/a%20b.html", "reports/a b.html"),
        ("/site/", "site/index.html"),
        ("/site/data/runs.js", "site/data/runs.js"),
    ],
)
def test_files_of_the_two_folders_are_served(port: int, path: str, name: str) -> None:
    status, text, headers = ask(port, path)
    assert (status, text) == (200, name)
    assert headers["Content-Type"].startswith("text/")
    assert ask(port, path, method="HEAD")[:2] == (200, "")


@pytest.mark.parametrize(
    "path",
    [
        "/reports/../warehouse/w.parquet",
        "/reports/%2e%2e/warehouse/w.parquet",
        "/reports/..%2fwarehouse/w.parquet",
        "/reports/%2e%2e/%2e%2e/secret.html",
        "/reports//etc/passwd",
        "//etc/passwd",
        "/etc/passwd",
        "/warehouse/w.parquet",
        "/reports/link.html",
        "/reports/loop.html",
        "/reports/away/w.parquet",
        "/reports/pipe.html",
        "/reports/.hidden.html",
        "/reports/r.html%00",
        "/reports/",
        "/site/data/",
        "/reports/absent.html",
        "reports",
        "/reports/" + "x" * 5000,
    ],
)
def test_nothing_else_is_served(port: int, path: str) -> None:
    status, text, _ = ask(port, path)
    assert status in (400, 404)
    assert not {"warehouse/w.parquet", "secret", "hidden", "root:"} & set(text.split("\n"))
    assert "root:" not in text


def test_the_first_page_lists_the_reports(port: int) -> None:
    status, text, _ = ask(port, "/")
    assert status == 200
    assert '<a href="/reports/r.html">' in text and '<a href="/site/">' in text
    assert ask(port, "/site")[0] == 301


def test_a_page_of_elsewhere_cannot_read_it_by_a_name_of_its_own(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(port, "/reports/r.html", host="evil.example")[0] == 403
    assert ask(port, "/reports/r.html", host=f"localhost:{port}")[0] == 200
    monkeypatch.setenv("OVEREDIT_REPORTS_URL", "https://bench.example/overedit/")
    assert ask(port, "/reports/r.html", host="bench.example")[0] == 200
    assert report_link("r") == "https://bench.example/overedit/reports/r.html"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_is_written(port: int, method: str) -> None:
    assert ask(port, "/reports/r.html", method=method)[0] == 501
