"""The benchmark on the real Prefect server, with the transformers engine on a tiny model."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from overedit.flows.config.models import BenchmarkConfig
from overedit.tasks.warehouse.tables import INSTANCE_TABLES
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.benchmark_run import (
    FinishedRun,
    checkpoint_digests,
    configuration,
    digests,
    rows_of,
    server_settings,
)
from tests.support.warm_process import ForkedProcess, WarmProcess


@pytest.mark.slow
def test_every_count_of_every_method_is_measured_by_one_engine(finished: FinishedRun) -> None:
    warehouse = Warehouse(finished.folder / "warehouse")
    measured = warehouse.query("SELECT DISTINCT method, edit_count FROM outcomes ORDER BY ALL").to_pylist()
    methods = ("ft_m", "locft_bf", "ultraedit")
    expected = [{"method": m, "edit_count": c} for m in methods for c in (1, 4, 12)] + [
        {"method": "none", "edit_count": 0}
    ]
    assert measured == sorted(expected, key=lambda row: (row["method"], row["edit_count"]))
    stages = dict(warehouse.query("SELECT stage, count(*) AS n FROM costs GROUP BY stage").to_pydict().items())
    counts = dict(zip(stages["stage"], stages["n"], strict=True))
    assert counts["engine_start"] == 1
    assert counts["swap"] == counts["edit"] == 9
    shapes = warehouse.query("SELECT probe, protocol, count(*) AS n FROM outcomes WHERE edit_count = 12 GROUP BY ALL")
    assert set(shapes["n"].to_pylist()) == {36}
    assert shapes.num_rows == 12, "four probes under three protocols"
    assert warehouse.query("SELECT count(*) AS n FROM runs WHERE status = 'completed'")["n"].to_pylist() == [3]
    assert warehouse.query("SELECT count(*) AS n FROM perplexity")["n"].to_pylist() == [20]


@pytest.mark.slow
def test_the_report_and_the_artifacts_are_there(finished: FinishedRun) -> None:
    folder, artifacts = finished.folder, finished.artifacts
    assert "LocFT-BF" in (folder / "reports" / "r.html").read_text()
    assert (folder / "reports" / "r.png").read_bytes()[:4] == b"\x89PNG"
    leaderboard = artifacts["leaderboard"]
    assert leaderboard is not None
    assert "UltraEdit" in str(leaderboard.data)
    assert "## Teacher-forced protocol" in str(leaderboard.data)
    assert artifacts["progress"] is not None
    assert "[r.html](http://127.0.0.1:4201/reports/r.html)" in str(artifacts["report"].data)
    for key, name in (("collapse-curve", "r.png"), ("retention", "r.retention.png")):
        image, picture = artifacts[key], (folder / "reports" / name).read_bytes()
        assert image is not None and image.type == "image"
        assert base64.b64decode(str(image.data).partition("base64,")[2].strip(")")) == picture
    assert artifacts["perplexity-capability"] is None, "the run has no general benchmarks"


@pytest.mark.slow
def test_a_run_that_is_complete_changes_nothing_and_starts_no_engine(finished: FinishedRun) -> None:
    from overedit.flows.benchmark import benchmark

    folder, config = finished.folder, finished.config
    before = digests(folder, "runs", "warehouse")
    benchmark(config)
    after = digests(folder, "runs", "warehouse")
    assert results(after) == results(before), "but for the record of this instance"


def results(files: dict[str, str]) -> dict[str, str]:
    """The files of results, without the database and the records of instances."""
    records = tuple(f"warehouse/{table}/" for table in INSTANCE_TABLES)
    return {path: digest for path, digest in files.items() if not path.startswith(records) and path[-7:] != ".duckdb"}


@pytest.mark.slow
def test_a_run_that_was_pruned_is_still_complete(finished: FinishedRun, tmp_path: Path) -> None:
    from overedit.flows.benchmark import benchmark
    from overedit.tasks.runs.prune import prune_run
    from overedit.tasks.runs.verify import verify

    for part in ("runs", "warehouse"):
        shutil.copytree(finished.folder / part, tmp_path / part)
    config = finished.config.model_copy(update={"home": tmp_path})
    assert sum(len(pruning.pruned) for pruning in prune_run(tmp_path, "r")) >= 3
    before = digests(
        tmp_path, "runs", *(f"warehouse/{table}" for table in ("outcomes", "checkpoints", "costs", "runs"))
    )
    benchmark(config)
    after = digests(tmp_path, "runs", *(f"warehouse/{table}" for table in ("outcomes", "checkpoints", "costs", "runs")))
    assert after == before, "nothing is edited or measured again, and no engine is started"
    assert not [part for part in verify(tmp_path) if part.damages]


@pytest.mark.slow
def test_the_flow_run_says_model_methods_and_dataset(finished: FinishedRun, tiny_model: Path) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        names = [run.name for run in client.read_flow_runs()]
        tasks = {run.name for run in client.read_task_runs()}
    assert f"{tiny_model.name} x LocFT-BF, FT-M, UltraEdit x file [r]" in names
    assert {"edit UltraEdit, order 0", "measure ft-m at 12", "measure base at 0"} <= tasks


@pytest.mark.slow
def test_the_same_name_with_another_configuration_is_refused(finished: FinishedRun) -> None:
    from overedit.flows.plan import make_plan

    folder, config = finished.folder, finished.config
    before = digests(folder, "runs", "warehouse", "reports")
    with pytest.raises(ValueError, match="different configuration") as caught:
        make_plan(config.model_copy(update={"turn_size": 5}))
    assert "turn_size: was 4, is now 5" in str(caught.value)
    assert digests(folder, "runs", "warehouse", "reports") == before


@pytest.mark.slow
def test_weights_that_are_no_numbers_are_a_collapse_with_its_turn_and_the_others_go_on(
    finished: FinishedRun, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from overedit.editing.methods import ultraedit
    from overedit.flows.benchmark import benchmark
    from overedit.tasks.runs.status import status_table

    whole, turns = ultraedit.target_rows, iter(range(1, 100))

    def exploding(*arguments: Any, **named: Any) -> Any:
        return whole(*arguments, **named) * (1e300 if next(turns) == 3 else 1.0)

    monkeypatch.setattr(ultraedit, "target_rows", exploding)
    config = configuration(tmp_path, tiny_model)
    benchmark(BenchmarkConfig.model_validate(config | {"methods": config["methods"][1:], "turn_size": 2}))
    warehouse = Warehouse(tmp_path / "warehouse")

    points = {row["trajectory"]: row for row in warehouse.query("SELECT * FROM collapse_point").to_pylist()}
    assert (points["ft-m"]["weights_at"], points["ft-m"]["measured_up_to"]) == (None, 12)
    broken = points["ultraedit"]
    assert (broken["collapse_at"], broken["reason"], broken["status"]) == (4, "weights", "completed")
    assert broken["detail"] == "weights that are not finite, after the turn of edits 3 to 4"
    turn = warehouse.query(
        "SELECT quantity, value FROM diagnostics WHERE trajectory = 'ultraedit' AND (first_edit, last_edit) = "
        "(SELECT (first_edit, last_edit) FROM diagnostics WHERE quantity = 'finite' AND value = 0)"
    )
    assert {"finite", "loss", "rows"} <= set(turn["quantity"].to_pylist())

    asked = warehouse.query(
        "SELECT edit_count, count(*) AS n, count(score) AS scores, count(output) AS outputs, any_value(reason) "
        "AS reason FROM outcomes WHERE trajectory = 'ultraedit' GROUP BY ALL ORDER BY ALL"
    ).to_pylist()
    assert [row["edit_count"] for row in asked] == [1, 4]
    assert asked[1] == {"edit_count": 4, "n": 48, "scores": 0, "outputs": 0, "reason": "the weights are not finite"}
    assert asked[0]["scores"] > 0
    swapped = warehouse.query("SELECT edit_count FROM costs WHERE stage = 'swap' AND trajectory = 'ultraedit'")
    assert swapped["edit_count"].to_pylist() == [1], "no engine is given such weights"
    page = (tmp_path / "reports" / "r.html").read_text()
    assert "eights that are not finite, after the turn of edits 3 to 4" in page
    said = {str(cell) for column in status_table(tmp_path).columns for cell in column.cells}
    assert "the weights are not finite after the turn of edits 3 to 4" in said


@pytest.mark.slow
def test_what_fails_is_recorded_and_the_rest_goes_on_and_the_same_command_again_makes_it_whole(
    finished: FinishedRun, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn that exceeds the memory, and a checkpoint that every engine dies of."""
    import torch

    import overedit.tasks.evaluation.evaluator as measuring
    from overedit.editing.methods.registry import METHODS
    from overedit.flows.benchmark import benchmark
    from overedit.tasks.editing_job import job
    from overedit.tasks.engine.base import EngineDiedError

    tune, evaluate, turns = METHODS["ft_m"].function, measuring.evaluate_checkpoint, iter(range(1, 100))

    def second_turn_too_large(*arguments: Any, **named: Any) -> Any:
        if next(turns) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tune(*arguments, **named)

    def deadly_at_four(engine: Any, requests: Any, edit_count: int, *arguments: Any, **named: Any) -> Any:
        if edit_count == 4:
            engine.generate(["The"], max_tokens=1)
            raise EngineDiedError("the engine died during generate: killed by SIGKILL")
        return evaluate(engine, requests, edit_count, *arguments, **named)

    config = BenchmarkConfig.model_validate(configuration(tmp_path, tiny_model))
    with monkeypatch.context() as broken:
        too_large = METHODS["ft_m"]._replace(function=second_turn_too_large)
        broken.setattr(job, "METHODS", {**METHODS, "ft_m": too_large})
        broken.setattr(measuring, "evaluate_checkpoint", deadly_at_four)
        with pytest.raises(RuntimeError, match=r"LocFT-BF failed: .*; FT-M failed: OutOfMemoryError"):
            benchmark(config)
    warehouse = Warehouse(tmp_path / "warehouse")
    ended = {row["trajectory"]: row for row in warehouse.query("SELECT * FROM runs").to_pylist()}
    assert {row["status"] for row in ended.values()} == {"failed"}
    died = "EngineDiedError: the engine died during generate: killed by SIGKILL"
    assert ended["locft-bf"]["error"] == f"measure locft-bf at 4: {died}"
    counts = warehouse.query("SELECT DISTINCT trajectory, edit_count FROM outcomes WHERE edit_count > 0 ORDER BY ALL")
    assert [tuple(row.values()) for row in counts.to_pylist()] == [
        ("ft-m", 1),
        *((name, count) for name in ("locft-bf", "ultraedit") for count in (1, 12)),
    ]
    starts = warehouse.query("SELECT count(*) AS n FROM costs WHERE stage = 'engine_start'")["n"].to_pylist()
    assert starts == [1 + 2 * 3], "the first, and three that two checkpoints each ended"

    benchmark(config)
    assert rows_of(tmp_path, "outcomes") == rows_of(finished.folder, "outcomes")
    assert checkpoint_digests(tmp_path) == checkpoint_digests(finished.folder)


LOCFT_EDITED = "runs/r/locft-bf/order-0/00000004/checkpoint.json"
LOCFT_MEASURED = "warehouse/outcomes/r/locft-bf/**/*.parquet"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "own_server"),
    [pytest.param(LOCFT_EDITED, True, marks=pytest.mark.long), (LOCFT_MEASURED, False)],
    ids=["edit", "measure"],
)
def test_kill_nine_and_the_same_command_again_ends_with_the_same_bits(
    finished: FinishedRun, warm_process: WarmProcess, tiny_model: Path, tmp_path: Path, at: str, own_server: bool
) -> None:
    """The process is killed when a checkpoint (or the outcomes of one) appears, and the run is started again."""
    config = configuration(tmp_path, tiny_model)
    settings = server_settings(tmp_path / "prefect" if own_server else None)
    begin_and_kill(warm_process, config, settings, at=at)
    again = begin(warm_process, config, settings)
    assert again.wait() == 0, again.said()[-2000:]
    assert rows_of(tmp_path, "outcomes") == rows_of(finished.folder, "outcomes")
    assert checkpoint_digests(tmp_path) == checkpoint_digests(finished.folder)


SCRIPT = """
import json, sys
from overedit.flows.benchmark import benchmark
from overedit.flows.config.models import BenchmarkConfig
benchmark(BenchmarkConfig.model_validate(json.loads(sys.argv[1])))
"""


def begin(warm_process: WarmProcess, config: dict[str, Any], settings: dict[str, str]) -> ForkedProcess:
    """A run in a process of its own; what it says goes to a file in its home."""
    log = Path(config["home"]) / "log.txt"
    return warm_process.run(SCRIPT, json.dumps(config), environment=os.environ | settings, log=log)


def begin_and_kill(warm_process: WarmProcess, config: dict[str, Any], settings: dict[str, str], *, at: str) -> None:
    """Begin a run and kill it, and the server that it started, as soon as a file like `at` is there."""
    home = Path(config["home"])
    process = begin(warm_process, config, settings)
    deadline = time.monotonic() + 240
    while not any(home.glob(at)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.said()[-2000:]
    assert any(home.glob(at)), "the run came this far"
    assert not (home / "reports" / "r.html").exists(), "the run was stopped before its end"
