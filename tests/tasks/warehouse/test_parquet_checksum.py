"""Whatever bit of a file of the warehouse flips, it is found; and the stages that need it run again."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from overedit.tasks.warehouse.parquet_checksum import is_whole
from overedit.tasks.warehouse.warehouse import Warehouse

PLACE = {"run": "r", "trajectory": "t", "order_seed": 0, "edit_count": 1}
ROWS = [
    PLACE | {"model": "m", "method": "x", "dataset": "d", "corpus": "c", "text_id": i, "nll": i / 3, "num_tokens": 2}
    for i in range(5)
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(Warehouse(tmp_path).write("perplexity", ROWS, partition=PLACE, key="k"))


def test_every_flipped_bit_of_a_file_is_found(path: Path) -> None:
    content = path.read_bytes()
    assert is_whole(path)
    with path.open("r+b", buffering=0) as stream:
        for place in range(len(content)):
            os.pwrite(stream.fileno(), bytes([content[place] ^ 1 << place % 8]), place)
            assert not is_whole(path), f"byte {place} of {len(content)}"
            os.pwrite(stream.fileno(), content[place : place + 1], place)
    assert is_whole(path)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 100, -1])
def test_a_cut_file_is_found(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
    assert not is_whole(path)


def test_a_file_without_a_checksum_is_not_what_we_wrote(path: Path) -> None:
    pq.write_table(pq.ParquetFile(path).read().replace_schema_metadata(None), path)
    assert not is_whole(path)


def test_the_same_rows_make_the_same_file_and_any_reader_reads_it(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    warehouse = Warehouse(tmp_path)
    assert Path(warehouse.write("perplexity", ROWS, partition=PLACE, key="k")).read_bytes() == before
    assert warehouse.rows("perplexity", PLACE) == ROWS
    assert warehouse.query("SELECT max(nll) AS m FROM perplexity")["m"].to_pylist() == [4 / 3]


def test_damaged_files_of_a_run_are_set_aside_with_a_warning(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    warehouse = Warehouse(tmp_path)
    others = [
        Path(warehouse.write(
            "perplexity", [row | other for row in ROWS], partition=PLACE | other, key="k"
        )) for other in ({"run": "other"}, {"edit_count": 2})
    ]  # fmt: skip
    for damaged in (path, others[0]):
        content = damaged.read_bytes()
        damaged.write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:])
    assert warehouse.holds("perplexity", PLACE, "k"), "the footer alone does not say it"
    with caplog.at_level(logging.WARNING):
        assert warehouse.set_aside_damaged("r") == [path.with_name(f"{path.name}.damaged")]
    assert str(path) in caplog.text
    assert not warehouse.holds("perplexity", PLACE, "k")
    assert all(other.is_file() for other in others), "whole, or another run's"
    assert warehouse.set_aside_damaged("r") == []
