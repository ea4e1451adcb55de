"""The sums kept in a file's footer are the query over its rows, whatever the rows are."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overedit.tasks.runs.verify import verify
from overedit.tasks.warehouse.arrow_rows import conform
from overedit.tasks.warehouse.outcome_sums import SCHEMA, SUMS_KEY, added_up, from_footer, same_sums, sums_of, to_footer
from overedit.tasks.warehouse.parquet_checksum import seal
from overedit.tasks.warehouse.tables import TABLES
from overedit.tasks.warehouse.views import view_names, view_sql
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.synthetic_run import RUN, fill, identity, partition
from tests.support.synthetic_run import outcomes as outcomes_of

VIEWS = ("reliability_by_edit_count", "retention_by_age", "text_health", "collapse_point", "leaderboard")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
reasons = st.sampled_from(["score: none", "score: lost by case 7; agreement: a", "agreement: b", "", "odd"]) | texts
scores = st.sampled_from([0.0, 0.25, 1 / 3, 1.0]) | st.floats(0, 1)
outcomes = st.fixed_dictionaries(
    {
        "edit_count": st.sampled_from([0, 1, 11, 1000]),
        "method": st.sampled_from(["none", "ft_m"]),
        "position": st.integers(1, 2000),
        "case_id": texts,
        "probe": st.sampled_from(["edit", "locality"]),
        "protocol": st.sampled_from(["generated", "probability"]),
        "output": st.none() | texts | st.sampled_from(["the the the the the of of of", "a b c d e f g h i", " \n"]),
        "num_tokens": st.none() | st.integers(0, 40),
        "finish_reason": st.none() | st.sampled_from(["eos", "length"]),
        "score": st.none() | scores | st.just(math.nan),
        "agreement": st.none() | scores,
        "reason": st.none() | reasons,
    }
)


def table(rows: list[dict[str, Any]]) -> pa.Table:
    place = identity("ft_l", 0)
    return conform(
        "outcomes", pa.Table.from_pylist([place | row for row in rows], TABLES["outcomes"]), TABLES["outcomes"]
    )


def without_sums(path: Path) -> None:
    """As files were before there were sums."""
    pq.write_table(pq.ParquetFile(path).read(), path, compression="zstd")


def answers(warehouse: Warehouse, view: str) -> list[dict[str, Any]]:
    return list(warehouse.query(f"SELECT * FROM {view}").to_pylist())


@settings(max_examples=20, deadline=None)
@given(st.lists(outcomes, max_size=30))
def test_the_sums_are_the_rows_counted_and_added(rows: list[dict[str, Any]]) -> None:
    sums = sums_of(table(rows)).to_pylist()
    scored = [row["score"] for row in rows if row["score"] is not None]
    assert sum(group["num_rows"] for group in sums) == len(rows)
    assert sum(group["num_scores"] for group in sums) == len(scored)
    total = math.fsum(group["sum_scores"] for group in sums if group["sum_scores"] is not None)
    assert math.isclose(total, math.fsum(scored)) or (math.isnan(total) and any(map(math.isnan, scored)))
    made = [row for row in rows if row["protocol"] == "generated" and row["output"] is not None]
    assert sum(group["num_texts"] for group in sums) == len(made)
    assert sum(group["num_empty"] for group in sums) == sum(not row["output"].strip(" \n\r\t") for row in made)
    assert sum(group["sum_lengths"] or 0 for group in sums) == sum(row["num_tokens"] or 0 for row in made)
    aged = [
        row
        for row in rows
        if row["probe"] == "edit" and row["method"] != "none" and row["position"] <= row["edit_count"]
    ]
    decades = {len(str(age)) if (age := row["edit_count"] - row["position"]) else 0 for row in aged}
    assert {group["decade"] for group in sums} - {None} == decades


@settings(max_examples=10, deadline=None)
@given(st.lists(outcomes, max_size=30), st.integers(0, 30))
def test_sums_of_some_and_of_others_are_the_sums_of_all(rows: list[dict[str, Any]], cut: int) -> None:
    whole = sums_of(table(rows))
    assert same_sums(added_up([sums_of(table(rows[:cut])), sums_of(table(rows[cut:]))]), whole)
    kept = from_footer(to_footer(whole))
    assert kept is not None and same_sums(kept, whole)


@settings(max_examples=6, deadline=None)
@given(st.lists(outcomes, min_size=1, max_size=20))
def test_the_views_read_from_footers_what_they_read_from_rows(rows: list[dict[str, Any]]) -> None:
    with TemporaryDirectory() as folder:
        warehouse = Warehouse(folder)
        path = Path(warehouse.write("outcomes", table(rows), partition={"run": "synthetic"}, key="k"))
        from_sums = added_up([warehouse.query("FROM outcome_sums")])
        without_sums(path)
        from_rows = added_up([warehouse.query("FROM outcome_sums")])
    assert same_sums(from_sums, from_rows) and same_sums(from_sums, sums_of(table(rows)))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up run, and its answers kept before anything is done to it."""
    root = tmp_path_factory.mktemp("filled")
    fill(root, cases=12)
    return root


def test_older_files_without_sums_give_the_same_answers(filled: Path, tmp_path: Path) -> None:
    expected = {view: answers(Warehouse(filled), view) for view in VIEWS}
    shutil.copytree(filled, tmp_path / "older")
    for path in sorted((tmp_path / "older/outcomes").rglob("*.parquet"))[::2]:
        without_sums(path)
    older = Warehouse(tmp_path / "older")
    assert {view: answers(older, view) for view in VIEWS} == expected
    with older.connect(run=RUN) as connection:
        for view in VIEWS:
            assert connection.sql(f"FROM {view}").to_arrow_table().to_pylist() == expected[view]


def test_sums_of_another_query_are_none(filled: Path, tmp_path: Path) -> None:
    shutil.copytree(filled, tmp_path / "warehouse")
    path = min((tmp_path / "warehouse/outcomes").rglob("*.parquet"))
    rewrite(path, {SUMS_KEY[:-4] + b"0000": to_footer(SCHEMA.empty_table())[SUMS_KEY]})
    assert answers(Warehouse(tmp_path / "warehouse"), VIEWS[0]) == answers(Warehouse(filled), VIEWS[0])
    assert [damage for part in verify(tmp_path) for damage in part.damages] == []


def test_a_published_database_counts_what_is_written_later(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    place = partition("ft_l", 10)
    row = identity("ft_l", 10) | {"probe": "edit", "protocol": "generated", "position": 1, "case_id": "1", "score": 1.0}
    path = Path(warehouse.write("outcomes", [row], partition=place, key="k"))
    without_sums(path)
    with duckdb.connect(warehouse.publish(), read_only=True) as connection:

        def counted() -> Any:
            return connection.sql("SELECT edit_count, n FROM reliability_by_edit_count").fetchall()

        assert counted() == [(10, 1)]
        warehouse.write("outcomes", [row, row], partition=place, key="k")  # in the older file's place, with sums
        assert counted() == [(10, 2)]
        later = [row | identity("ft_l", 100)]
        warehouse.write("outcomes", later, partition=partition("ft_l", 100), key="k")
        assert counted() == [(10, 2), (100, 1)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda sums: {**sums, "num_scores": [n + 1 for n in sums["num_scores"]]}, "are not those of its rows"),
        (lambda sums: {**sums, "sum_scores": [0.5] * len(sums["run"])}, "are not those of its rows"),
        (lambda sums: {name: [] for name in sums}, "are not those of its rows"),
        (lambda sums: {**sums, "num_scores": ["many"] * len(sums["run"])}, "its sums cannot be read"),
        (lambda sums: [], "its sums cannot be read"),
    ],
)
def test_verify_finds_sums_that_are_not_those_of_the_rows(tmp_path: Path, change: Any, said: str) -> None:
    place, rows = partition("ft_l", 10), list(outcomes_of("ft_l", 10, 1000, cases=3, seed=0))
    path = Path(Warehouse(tmp_path / "warehouse").write("outcomes", rows, partition=place, key="made up"))
    assert [damage for part in verify(tmp_path) for damage in part.damages] == []
    sums = json.loads(pq.read_metadata(path).metadata[SUMS_KEY])
    rewrite(path, {SUMS_KEY: json.dumps(change(sums)).encode()})
    ((found, what),) = [damage for part in verify(tmp_path) for damage in part.damages]
    assert found == path and said in what


READS_ROWS = {
    "preset_outcomes": "FROM outcomes",  # judges each of them anew
    "durability": "FROM outcomes_after AS a\n    JOIN outcomes AS b",  # pairs the few that were asked again
}


def test_every_view_of_outcomes_is_made_of_the_sums() -> None:
    """None reads the rows themselves, for a hundred million take seconds; but two have to."""
    for view in view_names():
        read = re.findall(r"(?:FROM outcomes_after AS a\s+JOIN|FROM|JOIN) outcomes\b(?: AS b)?", view_sql(view))
        assert read == ([READS_ROWS[view]] if view in READS_ROWS else []), view


def rewrite(path: Path, footer: dict[bytes, bytes]) -> None:
    content = pq.ParquetFile(path).read()
    with path.open("w+b") as stream:
        with pq.ParquetWriter(stream, content.schema, compression="zstd") as writer:
            writer.write_table(content)
            writer.add_key_value_metadata(footer)
        seal(stream)
