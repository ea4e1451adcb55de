"""Verification: damage of checkpoints and of warehouse files is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from overedit.tasks.runs.verify import Verification, verify, verify_table
from overedit.tasks.warehouse.tables import TABLES
from tests.support.stored_run import point_at, store_perplexity, write_checkpoint


def damages(parts: list[Verification]) -> list[tuple[str, str]]:
    return [(damage.path.name, damage.what) for part in parts for damage in part.damages]


def folder(home: Path) -> Path:
    return home / "runs" / "r" / "ft-m" / "order-0"


def stored(home: Path, table: str) -> Path:
    return min((home / "warehouse" / table).rglob("*.parquet"))


def test_what_is_whole(home: Path) -> None:
    point_at(home, 1).store_cost("edit", 1.0, 1, key="k")
    point_at(home, 1).store_cost("engine_start", 1.0, 1, key="engine_start-1", part="engine_start-1")
    parts = verify(home)
    assert damages(parts) == []
    assert {part.name: part.num_checked for part in parts} == {
        "runs/r/ft-m/order-0": 5,
        "warehouse/runs": 1,
        "warehouse/checkpoints": 5,
        "warehouse/costs": 2,
        "warehouse/perplexity": 6,
    }
    assert parts[0].num_bytes == sum(path.stat().st_size for path in folder(home).rglob("*") if path.is_file())
    assert verify_table(parts).row_count == 5


def bit(path: Path, before: bytes = b"") -> None:
    """Flip one in the last byte, or in the one before the last that are these."""
    content = bytearray(path.read_bytes())
    content[content.rfind(before) - 1 if before else -1] ^= 1
    path.write_bytes(content)


def other_rows(path: Path) -> None:
    content = pq.read_table(path)
    pq.write_table(content.drop(["run"]).append_column(content.schema.field("run"), [["other"] * len(content)]), path)


def no_key(path: Path) -> None:
    pq.write_table(pq.ParquetFile(path).read().replace_schema_metadata(None), path)


def other_columns(path: Path) -> None:
    pq.write_table(pq.ParquetFile(path).read().rename_columns(["x", *TABLES["perplexity"].names[1:]]), path)


@pytest.mark.parametrize(
    ("damage", "name", "words"),
    [
        (lambda home: bit(folder(home) / "00000002" / "weights.safetensors"), "00000002", "checksums"),
        (lambda home: bit(folder(home) / "00000003" / "state.safetensors"), "00000003", "checksums"),
        (lambda home: (folder(home) / "00000003" / "state.safetensors").unlink(), "00000003", "cannot be read"),
        (lambda home: (folder(home) / "00000004" / "checkpoint.json").write_text("{}"), "00000004", "edit_count"),
        (lambda home: (folder(home) / "00000004" / "checkpoint.json").unlink(), "00000004", "missing"),
        (lambda home: (folder(home) / "00000004").rename(folder(home) / "00000009"), "00000009", "its record says 4"),
        (lambda home: write_checkpoint(folder(home), 5, value=2.0), "00000005", "the warehouse has other checksums"),
        (lambda home: stored(home, "perplexity").write_bytes(b"PAR1"), "", "cannot be read"),
        (lambda home: stored(home, "perplexity").rename(stored(home, "perplexity").with_name("a.parquet")), "a.parquet",
         "its name does not follow"),
        (lambda home: bit(folder(home) / "00000004" / "checkpoint.json"), "00000004", "checksum"),
        (lambda home: bit(stored(home, "perplexity"), before=b"-cpp-arrow"), "", "checksum that it was written with"),
        (lambda home: other_rows(stored(home, "perplexity")), "", "holds rows that are not of run=r"),
        (lambda home: no_key(stored(home, "perplexity")), "", "which stage wrote it"),
        (lambda home: other_columns(stored(home, "perplexity")), "", "its columns are not those of perplexity"),
    ],
)  # fmt: skip
def test_each_damage_is_found_and_named(home: Path, damage: Callable[[Path], object], name: str, words: str) -> None:
    damage(home)
    found = damages(verify(home))
    assert len(found) == 1
    assert name in found[0][0]
    assert words in found[0][1]


def test_a_run_a_folder_or_a_checkpoint_alone(home: Path) -> None:
    write_checkpoint(home / "runs" / "s" / "ft-m" / "order-0", 1)
    bit(folder(home) / "00000002" / "weights.safetensors")
    assert [part.name for part in verify(home, "s")] == ["s/ft-m/order-0"]
    assert len(damages(verify(home, "r"))) == 1
    assert len(damages(verify(Path("nowhere"), str(home)))) == 1, "another home"
    assert len(damages(verify(home, str(folder(home))))) == 1
    assert damages(verify(home, str(folder(home) / "00000001"))) == []
    assert len(damages(verify(home, str(folder(home) / "00000002")))) == 1


@pytest.mark.parametrize("what", ["none", "..", "/dev/null", "a\0b"])
def test_nothing_to_check(home: Path, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "empty" / "here")  # a folder is looked for from here
    with pytest.raises(ValueError, match="neither"):
        verify(home / "runs", what)


def test_a_swapped_tensor_is_found(home: Path) -> None:
    """Whole files with other values are damaged too."""
    path = folder(home) / "00000001" / "weights.safetensors"
    save_file({"w": load_file(path)["w"] + torch.eye(4)}, path)
    assert "checksums" in damages(verify(home))[0][1]


def test_rows_of_a_run_without_checkpoints(home: Path) -> None:
    shutil.rmtree(home / "runs")
    store_perplexity(home, 7, 1.0)
    assert {part.name for part in verify(home, "r")} == {
        f"warehouse/{n}" for n in ("runs", "checkpoints", "perplexity")
    }


def test_a_pruned_record_with_another_checksum_is_found(home: Path) -> None:
    from overedit.tasks.runs.prune import prune_run

    prune_run(home, "r")
    path = folder(home) / "00000001" / "checkpoint.json"
    record = json.loads(path.read_text())
    del record["sha256"]
    record["tensors"]["w"]["sha256"] = "0" * 64
    path.write_text(json.dumps(record))
    assert damages(verify(home)) == [("00000001", "the warehouse has other checksums of it")]
