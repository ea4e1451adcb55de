"""One run in several processes at the same moment: one works, the others are told, or wait and find it done."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from tests.support.benchmark_run import FinishedRun, checkpoint_digests, configuration, rows_of, server_settings
from tests.support.command_line import Run
from tests.support.warm_process import ForkedProcess, WarmProcess

COMMAND = """
import sys, time
from pathlib import Path
from overedit.flows.cli.main import main
from overedit.flows.launch import prepare_logging

prepare_logging()  # before Prefect is imported, as main does
import overedit.flows.benchmark

flow_of = overedit.flows.benchmark.flow_of
home, number = Path(sys.argv.pop(1)), sys.argv.pop(1)

def when_all_are_there(plan, **more):
    (home / f"ready-{number}").touch()
    while len(list(home.glob("ready-*"))) < 2 or ("--wait" in sys.argv and not (home / "runs/r/lock").exists()):
        time.sleep(0.001)
    return flow_of(plan, **more)

overedit.flows.benchmark.flow_of = when_all_are_there
main()
"""


@pytest.mark.slow
@pytest.mark.long
def test_of_two_that_start_at_the_same_moment_one_runs_and_one_that_waits_finds_it_done(
    finished: FinishedRun, warm_process: WarmProcess, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(configuration(tmp_path, tiny_model)))

    def begin(number: int, *options: str) -> ForkedProcess:
        return warm_process.run(
            COMMAND, str(tmp_path), str(number), "run", str(tmp_path / "c.yaml"), *options,
            environment=os.environ | server_settings(), log=tmp_path / f"log-{number}.txt",
        )  # fmt: skip

    processes = [begin(0), begin(1), begin(2, "--wait")]
    codes = [process.wait(timeout=300) for process in processes]
    said = [process.said() for process in processes]
    assert sorted(codes[:2]) == [0, 1], said
    assert codes[2] == 0, said[2]
    runs, told = codes.index(0), said[codes.index(1)]
    assert f"overedit: run 'r' is being worked on by process {processes[runs].pid} on" in told
    assert "waiting until it has ended" in said[2]
    assert "run 'r' was complete: nothing was edited or measured again" in said[2]
    assert "was complete" not in said[runs]
    assert rows_of(tmp_path, "outcomes") == rows_of(finished.folder, "outcomes")
    assert checkpoint_digests(tmp_path) == checkpoint_digests(finished.folder)
    assert not (tmp_path / "runs" / "r" / "lock").exists()


def test_a_run_of_another_process_is_refused_before_a_server_is_started(
    overedit: Run, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from overedit.tasks.runs.run_lock import run_lock

    monkeypatch.setattr("overedit.flows.benchmark.flow_of", lambda *_: pytest.fail("the flow was called"))
    with run_lock(tmp_path / "runs" / "r"):
        before = sorted(tmp_path.rglob("*"))
        code, out, err = overedit("run", files["config"])
        assert sorted(tmp_path.rglob("*")) == before
    assert (code, out) == (1, "")
    assert f"overedit: run 'r' is being worked on by process {os.getpid()} on" in err
    assert err.strip().count("\n") == 0, "one line"


def test_two_edits_into_one_folder(overedit: Run, files: dict[str, str], tmp_path: Path) -> None:
    from overedit.tasks.system.locks import file_lock

    edit = ("edit", "--model", files["model"], "--method", "ft_m", "--requests", files["rows"], "--out", "out",
            "--set", "site=1.down_proj", "--set", "num_edits=1")  # fmt: skip
    with file_lock(tmp_path / ".out.lock", "--out"):
        code, _, err = overedit(*edit)
    assert code == 1
    assert "overedit: --out out is being worked on by process" in err
    assert overedit(*edit)[0] == 0
    assert not list(tmp_path.glob(".out*")), "neither the lock nor the trajectory stays behind"


def test_a_configuration_that_came_in_between_is_refused(files: dict[str, str], tmp_path: Path) -> None:
    """Two plans of one name were made at the same moment; the second one gets its turn when the first is done."""
    from overedit.flows.config.models import BenchmarkConfig
    from overedit.flows.config.run_identity import write_configuration
    from overedit.flows.plan import make_plan

    content = yaml.safe_load((tmp_path / "c.yaml").read_text()) | {"home": tmp_path}
    content["dataset"]["path"] = str(tmp_path / "rows.json")
    first = make_plan(BenchmarkConfig.model_validate(content))
    second = make_plan(BenchmarkConfig.model_validate(content | {"turn_size": 3}))
    write_configuration(first.run, first.config)
    with pytest.raises(ValueError, match="turn_size: was 100, is now 3"):
        write_configuration(second.run, second.config)
