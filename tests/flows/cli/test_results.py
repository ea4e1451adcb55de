"""The verbs that read results: what they write and print, and how they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overedit.tasks.storage.working_copy import local_home, sizes
from tests.support.command_line import Run
from tests.support.two_runs import fill_two


@pytest.fixture
def home(tmp_path: Path) -> Path:
    fill_two(tmp_path / "warehouse")
    return tmp_path


def test_a_report_in_the_form_that_is_asked_for(overedit: Run, home: Path) -> None:
    code, out, _ = overedit("report", "before", "--format", "markdown")
    assert code == 0
    names = ["before.png", "before.retention.png", "before.perplexity-capability.png", "before.md"]
    # no pristine model was measured, so perplexity has no ratio
    written = [name for name in names if "perplexity" not in name]
    assert out.splitlines() == [f"wrote reports/{name}" for name in written]
    assert "# Overedit: before" in (home / "reports" / "before.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "before", "--format", "pdf"], "format: 'pdf' is unknown"),
        (["report", "before", "--protocol", "probability"], "protocol: 'probability' was not asked in before"),
        (["report", "../up"], "is not a run's name"),
        (["compare", "before", "before"], "'before' is given twice"),
        (["compare", "before", "later"], "its runs are: after, before"),
        (["compare", "before", "after", "--format", "html"], "choose one of table, markdown, json"),
        (["compare", "before", "after", "--home", "nowhere"], "there is no warehouse in"),
    ],
)
def test_what_is_wrong_is_one_message_and_leaves_nothing(
    overedit: Run, home: Path, arguments: list[str], said: str
) -> None:
    before = sorted(home.rglob("*"))
    code, out, err = overedit(*arguments)
    assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1
    assert [path for path in sorted(home.rglob("*")) if path not in before and path.is_file()] == []


@pytest.mark.parametrize(
    "arguments",
    [["sql", "SELECT 1"], ["report", "before"], ["compare", "before", "after"], ["status"], ["verify"], ["prune", "a"]],
)
def test_a_home_that_is_no_store_is_refused(overedit: Run, home: Path, arguments: list[str]) -> None:
    code, out, err = overedit(*arguments, "--home", "http://user:secret@host/results")
    assert (code, out) == (2, "")
    assert err.startswith("overedit: home: 'http://...@host/results' is a URL of 'http'; accepted: a folder, or a URL")
    assert not (home / "http:").exists()


def test_the_commands_of_a_home_in_a_store(
    overedit: Run, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OVEREDIT_CACHE", str(tmp_path / "cache"))
    url = f"memory://{tmp_path.name}/results"
    fill_two(local_home(url) / "warehouse")
    for arguments in (["sql", "SELECT run FROM trajectories ORDER BY ALL"], ["compare", "before", "after"]):
        assert overedit(*arguments, "--home", url) == overedit(*arguments)
    assert overedit("sql", "SELECT count(*) FROM store.trajectories", "--attach", f"store={url}")[0] == 0
    assert overedit("sql", "SELECT * FROM read_csv('/etc/passwd')", "--home", url)[0] == 2
    code, out, err = overedit("report", "before", "--home", url)
    assert (code, f"wrote {url}/reports/before.html" in out) == (0, True), err
    assert "before.html" in sizes(local_home(url) / "reports")
    code, out, err = overedit("verify", "--home", url)
    assert "everything is as it was written" in out, out + err


def test_a_query_over_two_homes(overedit: Run, home: Path) -> None:
    fill_two(home / "last night" / "warehouse")
    sql = "SELECT count(*) AS n FROM trajectories AS mine JOIN {}.trajectories USING (run, trajectory, order_seed)"
    alone = overedit("sql", "SELECT count(*) AS n FROM trajectories", "--format", "csv")
    assert alone[0] == 0 and alone[1].splitlines()[0] == "n"
    for given, name in (("last night", "last_night"), ("other=last night", "other")):
        assert overedit("sql", sql.format(name), "--attach", given, "--format", "csv") == alone
    code, out, err = overedit("sql", "SELECT 1", "--attach", "nowhere")
    assert (code, out) == (2, "") and "nowhere; run a benchmark first, or name its folder with --attach" in err
    code, out, err = overedit("sql", "SELECT 1", "--attach", "other=http://bucket/x")
    assert (code, out) == (2, "") and "attach: 'http://bucket/x' is a URL of 'http'" in err


def test_two_runs_are_compared(overedit: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = overedit("compare", "before", "after")
    assert code == 0 and "FT-L.norm" in out and "-30.0" in out
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = overedit("compare", "before", "after", "--format", "json")
    (record,) = (one for one in json.loads(out)["differences"] if one["measure"] == "reliability")
    assert code == 0 and record["difference"] == pytest.approx(-0.3)
    code, out, _ = overedit("compare", "before", "after", "--format", "markdown")
    assert code == 0 and out.startswith("# before (A) and after (B)")
