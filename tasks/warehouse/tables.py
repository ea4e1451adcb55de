"""The Arrow schemas of the warehouse's tables: the only definition of their columns. `columns.py` says what each means.

Every table of measurements except `requests` starts with the same identity columns, on which any two can be joined. A
trajectory is one model x method x dataset x order seed, edited from 0 to its last edit count. `edit_count` 0 is the
pristine model: its rows belong to the trajectory `base` (method `none`) and are shared by all methods of the run. The
tables about a run's instances, its executions, start with `run` and `instance`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import pyarrow as pa

from overedit.tasks.warehouse.instance_tables import EXECUTIONS

Row: TypeAlias = dict[str, Any]
"""A row of a table, a view or a query: column -> value."""

_text, _int, _float, _bool = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_time = pa.timestamp("us", tz="UTC")

IDENTITY: list[pa.Field] = [
    pa.field("run", _text, nullable=False),
    pa.field("trajectory", _text, nullable=False),
    pa.field("model", _text, nullable=False),
    pa.field("method", _text, nullable=False),
    pa.field("dataset", _text, nullable=False),
    pa.field("order_seed", _int, nullable=False),
    pa.field("edit_count", _int, nullable=False),
]

_MEASURED: dict[str, pa.Schema] = {
    "runs": pa.schema(
        [
            *IDENTITY,
            pa.field("label", _text),
            pa.field("config", _text),
            pa.field("method_config", _text),
            pa.field("model_digest", _text),
            pa.field("engine", _text),
            pa.field("versions", _text),
            pa.field("hardware", _text),
            pa.field("started_at", _time),
            pa.field("status", _text),
            pa.field("error", _text),
        ]
    ),
    "requests": pa.schema(
        [
            pa.field("run", _text, nullable=False),
            pa.field("dataset", _text, nullable=False),
            pa.field("order_seed", _int, nullable=False),
            pa.field("position", _int, nullable=False),
            pa.field("case_id", _text, nullable=False),
            pa.field("prompt", _text),
            pa.field("subject", _text),
            pa.field("target_new", _text),
            pa.field("target_true", _text),
            pa.field("overwritten_by", _text),
        ]
    ),
    "checkpoints": pa.schema(
        [
            *IDENTITY,
            pa.field("parameter", _text),
            pa.field("sha256", _text),
            pa.field("weight_norm", _float),
            pa.field("base_norm", _float),
            pa.field("update_norm", _float),
            pa.field("bytes", _int),
            pa.field("path", _text),
            pa.field("branched_from", _int),
            pa.field("schedule", _text),
        ]
    ),
    "diagnostics": pa.schema(
        [
            *IDENTITY,
            pa.field("first_edit", _int),
            pa.field("last_edit", _int),
            pa.field("site", _text),
            pa.field("quantity", _text),
            pa.field("value", _float),
            pa.field("on_branch", _bool),
        ]
    ),
    "outcomes": pa.schema(
        [
            *IDENTITY,
            pa.field("position", _int),
            pa.field("case_id", _text),
            pa.field("probe", _text),
            pa.field("probe_index", pa.int32()),
            pa.field("protocol", _text),
            pa.field("prompt", _text),
            pa.field("target", _text),
            pa.field("output", _text),
            pa.field("num_tokens", pa.int32()),
            pa.field("finish_reason", _text),
            pa.field("stop", pa.list_(_text)),
            pa.field("max_tokens", pa.int32()),
            pa.field("similarity", _float),
            pa.field("greedy_ids", pa.list_(pa.int32())),
            pa.field("target_ids", pa.list_(pa.int32())),
            pa.field("nll", _float),
            pa.field("other", _text),
            pa.field("nll_other", _float),
            pa.field("num_tokens_other", pa.int32()),
            pa.field("score", _float),
            pa.field("agreement", _float),
            pa.field("reason", _text),
        ]
    ),
    "capability": pa.schema(
        [
            *IDENTITY,
            pa.field("task", _text),
            pa.field("part_of", _text),
            pa.field("metric", _text),
            pa.field("main", _bool),
            pa.field("value", _float),
            pa.field("stderr", _float),
            pa.field("num_samples", _int),
            pa.field("chance", _float),
        ]
    ),
    "capability_samples": pa.schema(
        [
            *IDENTITY,
            pa.field("task", _text),
            pa.field("doc_id", _int),
            pa.field("metric", _text),
            pa.field("value", _float),
            pa.field("target", _text),
            pa.field("response", _text),
        ]
    ),
    "perplexity": pa.schema(
        [
            *IDENTITY,
            pa.field("corpus", _text),
            pa.field("text_id", _int),
            pa.field("nll", _float),
            pa.field("num_tokens", _int),
        ]
    ),
    "verdicts": pa.schema(
        [
            *IDENTITY,
            pa.field("definition", _text, nullable=False),
            pa.field("rank", _int),
            pa.field("verdict", _text),
            pa.field("likely", _text),
            pa.field("z", _float),
            pa.field("confidence", _float),
        ]
    ),
    "scans": pa.schema(
        [
            *IDENTITY,
            pa.field("label", _text),
            pa.field("position", _int, nullable=False),
            pa.field("case_id", _text, nullable=False),
            pa.field("prompt", _text),
            pa.field("subject", _text),
            pa.field("target_new", _text),
            pa.field("perplexity", _float),
            pa.field("token_perplexity", _float),
            pa.field("base_perplexity", _float),
            pa.field("base_token_perplexity", _float),
            pa.field("ratio", _float),
            pa.field("update_norm", _float),
            pa.field("learned", _bool),
            pa.field("seconds", _float),
            pa.field("error", _text),
        ]
    ),
    "trials": pa.schema(
        [
            *IDENTITY,
            pa.field("label", _text),
            pa.field("study", _text, nullable=False),
            pa.field("split", _text, nullable=False),
            pa.field("trial", _int),
            pa.field("settings", _text),
            pa.field("state", _text),
            pa.field("objective", _float),
            pa.field("reported", _float),
            pa.field("reliability", _float),
            pa.field("reliability_n", _int),
            pa.field("generalization", _float),
            pa.field("generalization_n", _int),
            pa.field("locality", _float),
            pa.field("locality_n", _int),
            pa.field("capability", _float),
            pa.field("capability_n", _int),
            pa.field("base_capability", _float),
            pa.field("chance", _float),
            pa.field("capability_kept", _float),
            pa.field("perplexity_ratio", _float),
            pa.field("seconds", _float),
            pa.field("error", _text),
        ]
    ),
    "site_scores": pa.schema(
        [
            *IDENTITY,
            pa.field("label", _text),
            pa.field("site", _text),
            pa.field("layer", _int),
            pa.field("part", _text),
            pa.field("split", _text, nullable=False),
            pa.field("measure", _text, nullable=False),
            pa.field("protocol", _text),
            pa.field("item", _text, nullable=False),
            pa.field("value", _float),
            pa.field("n", _int),
            pa.field("stderr", _float),
            pa.field("chance", _float),
            pa.field("reason", _text),
        ]
    ),
    "costs": pa.schema(
        [
            *IDENTITY,
            pa.field("stage", _text),
            pa.field("seconds", _float),
            pa.field("ended_at", _time),
            pa.field("num_items", _int),
            pa.field("num_bytes", _int),
            pa.field("peak_memory_bytes", _int),
            pa.field("engine", _text),
            pa.field("verified", _bool),
        ]
    ),
}

OF_CHECKPOINTS = ("checkpoints", "outcomes", "capability", "capability_samples", "perplexity", "costs")
"""Tables that also exist for checkpoints after one more step (quantized, merged, trained further)."""


def after_table(table: str) -> str:
    """The name of the table of checkpoints after one more step."""
    return f"{table}_after"


def _after(schema: pa.Schema) -> pa.Schema:
    """The schema of such a table: the same columns, and the step."""
    return pa.schema([*IDENTITY, pa.field("after", _text, nullable=False), *list(schema)[len(IDENTITY) :]])


TABLES: dict[str, pa.Schema] = {
    **_MEASURED,
    **{after_table(table): _after(_MEASURED[table]) for table in OF_CHECKPOINTS},
    **EXECUTIONS,
}
"""Table name -> its Arrow schema."""

INSTANCE_TABLES = tuple(EXECUTIONS)
"""Tables about executions of runs."""

RESULTS = tuple(table for table in TABLES if table not in INSTANCE_TABLES)
"""Tables of results: the rows of an earlier instance move to the history when newer ones replace them."""
