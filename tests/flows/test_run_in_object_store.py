"""A whole run whose results are in an object store: moto's server, reached by s3fs as any store of S3 is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from safetensors.torch import load_file

from tests.support.benchmark_run import configuration
from tests.support.command_line import Run
from tests.support.object_store import SECRET, client, keys, make_bucket, object_store
from tests.support.warm_process import WarmProcess

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not os.environ.get("OVEREDIT_STORAGE"), reason="minutes; make storage runs it"),
]

RUN = """
import os, signal, sys
from overedit.flows.cli.main import main
from overedit.flows.launch import prepare_logging

prepare_logging()  # before Prefect is imported, as main does
import overedit.flows.benchmark

overedit.flows.benchmark.execute = lambda flow, config, wait: (flow.fn(config, wait=wait), False)  # without a server
kill_at = sys.argv.pop(1)
if kill_at:
    from overedit.tasks.editing_job import job

    synchronize = job.sync

    def sync(folder):
        synchronize(folder)
        if str(folder).endswith(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)

    job.sync = sync
main()
"""
HOME = "s3://results/team"
METHODS = [
    {"method": "ft_m", "site": "1.down_proj", "max_steps": 2},
    {"method": "ultraedit", "sites": ["1.down_proj"], "learning_rate": 1e-3},
]
TABLES = ("outcomes", "perplexity", "checkpoints", "diagnostics", "requests")


class Stored(NamedTuple):
    """The run, once in a folder, and once in a store."""

    environment: dict[str, str]
    local: Path
    config: str
    said: list[str]
    """What each process said: the first, which was killed; two on another machine; one that repeats the run."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with object_store(tmp_path_factory.mktemp("moto") / "log.txt") as environment:
        make_bucket(environment, "results")
        yield environment


@pytest.fixture(scope="module")
def stored(
    store: dict[str, str],
    warm_process: WarmProcess,
    tiny_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Stored:
    folder = tmp_path_factory.mktemp("run")
    content = configuration(folder, tiny_model, methods=METHODS, edit_counts=[2, 6])
    (folder / "c.yaml").write_text(yaml.safe_dump(content))

    said = []

    def run(number: int, machine: str, *arguments: str, kill_at: str = "") -> int:
        environment = os.environ | store | {"OVEREDIT_CACHE": str(folder / machine)}
        process = warm_process.run(RUN, kill_at, *arguments, environment=environment, log=folder / f"{number}.txt")
        code = process.wait(timeout=3000)
        said.append(process.said())
        return code

    in_store = ("run", str(folder / "c.yaml"), "--home", HOME)
    assert run(0, "one", "run", str(folder / "c.yaml")) == 0, said
    assert run(1, "one", *in_store, kill_at="line/00000004") == -9, said
    assert run(2, "other", *in_store) == 1, said
    assert run(3, "other", "unlock", "r", "--home", HOME) == 0, said
    assert run(4, "other", *in_store) == 0, said
    assert run(5, "third", *in_store) == 0, said
    return Stored(store, folder, str(folder / "c.yaml"), said[1:])


@pytest.fixture
def command(stored: Stored, overedit: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The command line on a machine that has seen nothing of the run."""
    for name, value in {**stored.environment, "OVEREDIT_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    return overedit


def rows(home: Path | str, table: str) -> list[dict[str, Any]]:
    import overedit

    left_out = "EXCLUDE (path)" if table == "checkpoints" else ""
    where = "WHERE quantity <> 'seconds'" if table == "diagnostics" else ""
    return list(overedit.read(home).sql(f"SELECT * {left_out} FROM {table} {where} ORDER BY ALL").to_pylist())


@pytest.mark.parametrize("table", TABLES)
def test_rows_are_those_of_the_run_in_a_folder(stored: Stored, command: Run, table: str) -> None:
    found = rows(HOME, table)
    assert found == rows(stored.local, table)
    assert found


def test_another_machine_continued_the_killed_run(stored: Stored) -> None:
    _, refused, unlocked, resumed, repeated = stored.said
    assert "run 'r' is being worked on by process" in refused
    assert f"its lock is left behind: overedit unlock r --home {HOME}" in refused
    assert "removed the lock of process" in unlocked
    for name in ("00000002", "line/00000004"):
        assert f"copied from the store: {HOME}/runs/r/ft-m/order-0/{name}" in resumed
    assert f"report: {HOME}/reports/r.html" in resumed
    assert "run 'r' was complete: nothing was edited or measured again" in repeated
    assert not any(SECRET in said for said in stored.said)


def test_the_store_has_the_bits_of_the_folder(stored: Stored, command: Run, tmp_path: Path) -> None:
    names = keys(stored.environment, "results")
    assert {name for name in names if "/line/" in name or name.endswith("/lock")} == set()
    local = {str(path.relative_to(stored.local)) for path in stored.local.rglob("*") if path.is_file()}
    own = re.compile(r"warehouse/(instances|instance_files|accepted)/")  # whose folders are named after an instance
    kept = {name for name in local if name.split("/")[0] in ("runs", "reports", "warehouse") and not own.match(name)}
    assert {name for name in (each.removeprefix("team/") for each in names) if not own.match(name)} == kept
    s3 = client(stored.environment)
    for name in sorted(kept):
        if name.endswith((".safetensors", "checkpoint.json")):
            content = s3.get_object(Bucket="results", Key=f"team/{name}")["Body"].read()
            assert content == (stored.local / name).read_bytes(), name
    assert not any(SECRET.encode() in s3.get_object(Bucket="results", Key=name)["Body"].read() for name in names)


def test_commands_read_results_in_the_store(stored: Stored, command: Run, tmp_path: Path) -> None:
    at = ("--home", HOME)
    code, out, _ = command("sql", "SELECT DISTINCT split_part(path, '/order', 1) AS p FROM checkpoints", *at)
    assert (code, f"{HOME}/runs/r/ft-m" in out) == (0, True)
    code, _, err = command("sql", "SELECT * FROM read_csv('/etc/passwd')", *at)
    assert (code, "Permission Error" in err) == (2, True)
    code, _, err = command("sql", "SELECT * FROM read_text('s3://results/other/x')", *at)
    assert (code, "Permission Error" in err) == (2, True)
    code, out, _ = command("status", *at)
    assert (code, "completed" in out, "2 6" in out) == (0, True, True)
    code, out, _ = command("sql", "SELECT instance FROM instances ORDER BY instance", "--format", "csv", *at)
    code, out, err = command("compare", f"r@{out.splitlines()[-1]}", "r", *at)
    assert code == 0, err
    code, out, _ = command("report", "r", "--format", "all", *at)
    assert (code, f"wrote {HOME}/reports/r.md" in out) == (0, True)
    assert "team/reports/r.md" in keys(stored.environment, "results")
    code, out, err = command("verify", *at)
    assert (code, "everything is as it was written" in out) == (0, True), out + err


def test_export_of_a_checkpoint_in_the_store(stored: Stored, command: Run, tmp_path: Path) -> None:
    checkpoint = "runs/r/ft-m/order-0/00000006"
    assert command("export", f"{HOME}/{checkpoint}", "model")[0] == 0
    edited = load_file(stored.local / checkpoint / "weights.safetensors")
    exported = load_file(tmp_path / "model" / "model.safetensors")
    for name, tensor in edited.items():
        assert exported[name].equal(tensor)


def test_a_corrupted_object_is_found_and_made_again(stored: Stored, command: Run) -> None:
    s3, key = client(stored.environment), "team/runs/r/ultraedit/order-0/00000006/weights.safetensors"
    whole = s3.get_object(Bucket="results", Key=key)["Body"].read()
    try:
        s3.put_object(Bucket="results", Key=key, Body=whole[:-1] + bytes([whole[-1] ^ 1]))
        code, out, _ = command("verify", "r", "--home", HOME)
        assert code == 1
        assert f"damaged: s3://results/{key.removesuffix('/weights.safetensors')}" in out.replace("\n", "")
        assert "overedit-" not in out, "the name of a temporary folder"
    finally:
        s3.put_object(Bucket="results", Key=key, Body=whole)


def test_z_prune_removes_weights_from_the_store(stored: Stored, command: Run) -> None:
    before = keys(stored.environment, "results")
    code, out, _ = command("prune", "r", "--dry-run", "--home", HOME)
    assert (code, "would free" in out) == (0, True)
    assert keys(stored.environment, "results") == before
    assert command("prune", "r", "--home", HOME)[0] == 0
    gone = set(before) - set(keys(stored.environment, "results"))
    assert {name.rsplit("/", 1)[1] for name in gone} <= {"weights.safetensors", "state.safetensors"}
    assert any("00000002" in name for name in gone)
    code, out, _ = command("verify", "--home", HOME)
    assert (code, "everything is as it was written" in out) == (0, True)
