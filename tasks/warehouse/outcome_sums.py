"""Sums of a file's outcomes, stored in the footer of the Parquet file.

The views need only counts and sums of outcomes. The result of `sql/outcome_sums.sql` over a file's rows is therefore
stored in the file's footer: rows and sums appear and are replaced together, and summing a hundred million rows takes
reading the footers. The name of the footer's entry contains a digest of the query, so sums of an older query are
ignored. A file without sums is summed by the same query when it is read; `overedit verify` sums every file again.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

_SQL = Path(__file__).parent / "sql"
_QUERY = (_SQL / "outcome_sums.sql").read_text()
_JUDGED = re.compile(r"WITH judged AS \((.*?)^\)\n", re.DOTALL | re.MULTILINE)
_QUERY_BY_FILE = re.sub(r"\bedit_count, probe\b", "edit_count, filename, probe", _QUERY)
_MACROS = (_SQL / "macros" / "common.sql").read_text()

_KEYS = {
    **dict.fromkeys(("run", "trajectory", "model", "method", "dataset"), "VARCHAR"),
    **dict.fromkeys(("order_seed", "edit_count"), "BIGINT"),
    **dict.fromkeys(("probe", "protocol"), "VARCHAR"),
    "decade": "BIGINT",
    **dict.fromkeys(("score_reason", "agreement_reason"), "VARCHAR"),
}
_SUMS = {
    **dict.fromkeys(("sum_scores", "sum_agreements"), "DOUBLE"),
    **dict.fromkeys(("num_rows", "num_scores", "num_agreements"), "BIGINT"),
    **dict.fromkeys(("num_texts", "num_empty", "num_repetitive", "num_lengths", "sum_lengths"), "BIGINT"),
    **dict.fromkeys(("num_endings", "num_cut"), "BIGINT"),
}
_ARROW = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "DOUBLE": pa.float64()}
SCHEMA = pa.schema([(name, _ARROW[sql_type]) for name, sql_type in (_KEYS | _SUMS).items()])
"""The columns of the result of `sql/outcome_sums.sql`."""


def _definition() -> str:
    """The SQL that computes the sums, without comments and line breaks."""
    return " ".join(re.sub(r"--[^\n]*", "", _MACROS + _QUERY).split())


SUMS_KEY = f"overedit.sums.{hashlib.sha256(_definition().encode()).hexdigest()[:16]}".encode()
"""The entry of a file's footer that holds its sums."""


def sums_of(rows: pa.Table) -> pa.Table:
    """The sums of rows of the table `outcomes`, by `sql/outcome_sums.sql`."""
    with duckdb.connect(
        ":memory:", config={"threads": 1}
    ) as connection:  # one thread: additions in the order of the rows
        connection.execute(_MACROS)
        connection.register("outcomes", rows)
        return added_up([connection.sql(_QUERY).to_arrow_table().select(SCHEMA.names).cast(SCHEMA)])


def added_up(sums: Iterable[pa.Table]) -> pa.Table:
    """The sums over several tables of sums, one row per group, sorted by the group's columns."""
    groups = pa.concat_tables([SCHEMA.empty_table(), *sums]).group_by(list(_KEYS), use_threads=False)
    added = groups.aggregate([(name, "sum") for name in _SUMS]).rename_columns(SCHEMA.names)
    return added.sort_by([(name, "ascending") for name in _KEYS])


def to_footer(sums: pa.Table) -> dict[bytes, bytes]:
    """The footer's entry: a list per column, as JSON."""
    return {SUMS_KEY: json.dumps(sums.to_pydict(), separators=(",", ":")).encode()}


def from_footer(metadata: Mapping[bytes, bytes]) -> pa.Table | None:
    """The sums in a footer; None if it has none of the current query.

    Raises:
        ValueError: The entry does not have the format of `to_footer`.
    """
    if SUMS_KEY not in metadata:
        return None
    try:
        return pa.table(json.loads(metadata[SUMS_KEY]), schema=SCHEMA)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its sums cannot be read: {error}") from error


def same_sums(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables of sums are equal up to the rounding of additions."""
    return one.num_rows == other.num_rows and all(
        _same(one[name].to_pylist(), other[name].to_pylist()) for name in SCHEMA.names
    )


def sums_view(paths: str, rows: str, *, named: bool = False) -> str:
    """A query for the sums of all files: stored ones from the footers, the others computed.

    Args:
        paths: SQL for the glob of the files, or for a list of their paths.
        rows: A query for their rows, with the column `filename`.
        named: Whether the result has the column `filename`.
    """
    shape = json.dumps({name: [sql_type] for name, sql_type in (_KEYS | _SUMS).items()})
    columns = ", ".join(f"unnest(sums.{name}) AS {name}" for name in SCHEMA.names)
    file = ", filename" if named else ""
    # subqueries, not names in a WITH clause: DuckDB 1.4 cannot read those from a database that a newer one wrote
    kept = f"""(
        SELECT file_name AS filename, value FROM parquet_kv_metadata({paths}) WHERE key = '{SUMS_KEY.decode()}'::BLOB
    )"""
    without = f"(SELECT file AS filename FROM glob({paths}) ANTI JOIN {kept} AS kept ON file = kept.filename)"
    query = _nested(_QUERY_BY_FILE if named else _QUERY).replace(
        "FROM outcomes", f"FROM (FROM ({rows}) SEMI JOIN {without} AS without USING (filename))"
    )
    return f"""
        SELECT {columns}{file} FROM (SELECT from_json(decode(value), '{shape}') AS sums{file} FROM {kept})
        UNION ALL
        SELECT {", ".join(SCHEMA.names)}{file} FROM ({query})"""


def _nested(query: str) -> str:
    """The query of the sums with a subquery in place of its WITH clause."""
    judged = _JUDGED.search(query)
    assert judged is not None, "sql/outcome_sums.sql begins with one query, judged"
    return query.replace(judged[0], "").replace("FROM judged", f"FROM ({judged[1]}) AS judged")


def _same(one: Sequence[object], other: Sequence[object]) -> bool:
    return all(
        a == b
        or (isinstance(a, float) and isinstance(b, float) and (math.isclose(a, b) or (math.isnan(a) and math.isnan(b))))
        for a, b in zip(one, other, strict=True)
    )
