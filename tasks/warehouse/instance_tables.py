"""The Arrow schemas of the tables about executions of runs; `tables.py` has all others, and joins them."""

from __future__ import annotations

import pyarrow as pa

_text, _int, _float, _bool = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_time = pa.timestamp("us", tz="UTC")

EXECUTIONS: dict[str, pa.Schema] = {
    "instances": pa.schema(
        [
            pa.field("run", _text, nullable=False),
            pa.field("instance", _text, nullable=False),
            pa.field("started_at", _time),
            pa.field("ended_at", _time),
            pa.field("status", _text),
            pa.field("error", _text),
            pa.field("commit", _text),
            pa.field("dirty", _bool),
            pa.field("versions", _text),
            pa.field("model_digest", _text),
            pa.field("requests_digest", _text),
            pa.field("hardware", _text),
            pa.field("host", _text),
            pa.field("requested_by", _text),
            pa.field("config", _text),
            pa.field("changes", _text),
            pa.field("num_computed", _int),
            pa.field("num_shared", _int),
            pa.field("baseline", _text),
            pa.field("num_moved", _int),
            pa.field("verdict", _text),
            pa.field("gate", _text),
            pa.field("flow_run_id", _text),
        ]
    ),
    "instance_files": pa.schema(
        [
            pa.field("run", _text, nullable=False),
            pa.field("instance", _text, nullable=False),
            pa.field("table_name", _text, nullable=False),
            pa.field("path", _text, nullable=False),
            pa.field("file", _text, nullable=False),
            pa.field("computed", _bool),
        ]
    ),
    "gates": pa.schema(
        [
            pa.field("run", _text, nullable=False),
            pa.field("instance", _text, nullable=False),
            pa.field("baseline", _text),
            pa.field("trajectory", _text),
            pa.field("label", _text),
            pa.field("order_seed", _int),
            pa.field("edit_count", _int),
            pa.field("kind", _text),
            pa.field("measure", _text),
            pa.field("protocol", _text),
            pa.field("before", _float),
            pa.field("after", _float),
            pa.field("difference", _float),
            pa.field("low", _float),
            pa.field("high", _float),
            pa.field("n", _int),
            pa.field("p_value", _float),
            pa.field("p_adjusted", _float),
            pa.field("verdict", _text),
            pa.field("reason", _text),
            pa.field("limit", _float),
            pa.field("failed", _bool),
        ]
    ),
    "accepted": pa.schema(
        [
            pa.field("run", _text, nullable=False),
            pa.field("instance", _text, nullable=False),
            pa.field("accepted_at", _time, nullable=False),
            pa.field("accepted_by", _text),
            pa.field("note", _text),
        ]
    ),
}
"""Table name -> its Arrow schema."""
