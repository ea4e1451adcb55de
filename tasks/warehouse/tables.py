"""The Arrow schemas of the warehouse's tables: the only definition of their columns.

Every table of results except `requests` starts with the same identity columns, on which any two can be joined. A
trajectory is one model x method x dataset x order seed, edited from 0 to its last edit count. `edit_count` 0 is the
pristine model: its rows belong to the trajectory `base` (method `none`) and are shared by all methods of the run.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import pyarrow as pa

Row: TypeAlias = dict[str, Any]
"""A row of a table, a view or a query: column -> value."""

_text, _int, _float, _bool = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_time = pa.timestamp("us", tz="UTC")
_INSTANCE = [pa.field("run", _text, nullable=False), pa.field("instance", _text, nullable=False)]

IDENTITY: list[pa.Field] = [
    pa.field("run", _text, nullable=False),
    pa.field("trajectory", _text, nullable=False),
    pa.field("model", _text, nullable=False),
    pa.field("method", _text, nullable=False),
    pa.field("dataset", _text, nullable=False),
    pa.field("order_seed", _int, nullable=False),
    pa.field("edit_count", _int, nullable=False),
]

TABLES: dict[str, pa.Schema] = {
    # one row per trajectory; its edit_count is the last planned one
    "runs": pa.schema(
        [
            *IDENTITY,
            pa.field("label", _text),  # the method's name in plots and tables, e.g. "LocFT-BF"
            pa.field("config", _text),  # the whole run configuration, JSON
            pa.field("method_config", _text),  # JSON
            pa.field("model_digest", _text),
            pa.field("engine", _text),
            pa.field("versions", _text),  # JSON: package -> version
            pa.field("hardware", _text),
            pa.field("started_at", _time),
            pa.field("status", _text),  # completed | failed
            pa.field("error", _text),
        ]
    ),
    # one row per edit request, in the order of editing
    "requests": pa.schema(
        [
            pa.field("run", _text, nullable=False),
            pa.field("dataset", _text, nullable=False),
            pa.field("order_seed", _int, nullable=False),
            pa.field("position", _int, nullable=False),  # 1 for the first edit
            pa.field("case_id", _text, nullable=False),
            pa.field("prompt", _text),
            pa.field("subject", _text),
            pa.field("target_new", _text),
            pa.field("target_true", _text),
            pa.field("overwritten_by", _text),  # case_id of a later edit of the same prompt, else null
        ]
    ),
    "checkpoints": pa.schema(
        [
            *IDENTITY,
            pa.field("parameter", _text),  # one row per edited tensor
            pa.field("sha256", _text),
            pa.field("weight_norm", _float),  # Frobenius
            pa.field("base_norm", _float),
            pa.field("update_norm", _float),  # of (edited - base)
            pa.field("bytes", _int),
            pa.field("path", _text),
        ]
    ),
    # one row per turn x site x quantity that the method logs; edit_count is that of the next checkpoint
    "diagnostics": pa.schema(
        [
            *IDENTITY,
            pa.field("first_edit", _int),  # the edits of the turn, counted from 1
            pa.field("last_edit", _int),
            pa.field("site", _text),  # e.g. 5.down_proj; null for quantities of the whole turn
            pa.field("quantity", _text),  # e.g. update_norm, preservation, loss
            pa.field("value", _float),
        ]
    ),
    # one row per case x probe x protocol
    "outcomes": pa.schema(
        [
            *IDENTITY,
            pa.field("position", _int),  # of the case in the order of editing, from 1; its age is edit_count - position
            pa.field("case_id", _text),
            pa.field("probe", _text),  # edit | rephrase | persona | locality | portability | text
            pa.field("probe_index", pa.int32()),
            pa.field("protocol", _text),  # generated | teacher_forced | probability
            pa.field("prompt", _text),
            pa.field("target", _text),  # the right answer; null if the dataset has none
            pa.field("output", _text),  # generated: the raw text
            pa.field("num_tokens", pa.int32()),  # generated: tokens of the output; otherwise of the target
            pa.field("finish_reason", _text),  # generated: eos | stop | length
            pa.field("stop", pa.list_(_text)),  # generated: the stop strings
            pa.field("max_tokens", pa.int32()),  # generated: the limit on the number of tokens
            pa.field("similarity", _float),  # text: TF-IDF cosine similarity with the references, in [0, 1]
            pa.field(
                "greedy_ids", pa.list_(pa.int32())
            ),  # teacher_forced: the model's own token at each position of the target
            pa.field("target_ids", pa.list_(pa.int32())),
            pa.field("nll", _float),  # probability: summed NLL of `target`, nats
            pa.field("other", _text),  # probability: the answer that `target` is compared with
            pa.field("nll_other", _float),
            pa.field("num_tokens_other", pa.int32()),
            pa.field("score", _float),  # in [0, 1] against `target`; null with a reason
            pa.field("agreement", _float),  # in [0, 1] with the pre-edit output; null with a reason
            pa.field("reason", _text),  # why score or agreement is null
        ]
    ),
    # one row per lm-eval task or group x metric
    "capability": pa.schema(
        [
            *IDENTITY,
            pa.field("task", _text),
            pa.field("part_of", _text),  # the group whose score it is part of; null if it counts by itself
            pa.field("metric", _text),
            pa.field("main", _bool),  # the task's headline metric, in [0, 1], higher is better
            pa.field("value", _float),
            pa.field("stderr", _float),
            pa.field("num_samples", _int),
            pa.field("chance", _float),  # the score of guessing; null if unknown
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
    # one row per text
    "perplexity": pa.schema(
        [
            *IDENTITY,
            pa.field("corpus", _text),
            pa.field("text_id", _int),
            pa.field("nll", _float),  # summed over num_tokens, nats
            pa.field("num_tokens", _int),
        ]
    ),
    # one row per case that was the only edit of the pristine model; its edit_count is 1
    "scans": pa.schema(
        [
            *IDENTITY,
            pa.field("label", _text),  # as in `runs`
            pa.field("position", _int, nullable=False),  # in the order of the dataset, from 1
            pa.field("case_id", _text, nullable=False),
            pa.field("prompt", _text),
            pa.field("subject", _text),
            pa.field("target_new", _text),
            pa.field("perplexity", _float),  # mean of the texts' perplexities; infinite if it is not a number
            pa.field("token_perplexity", _float),  # of all texts together, with equal weight for each token
            pa.field("base_perplexity", _float),  # the pristine model's
            pa.field("base_token_perplexity", _float),
            pa.field("ratio", _float),  # perplexity / base_perplexity
            pa.field("update_norm", _float),  # Frobenius, of all edited tensors together (edited - base)
            pa.field("learned", _bool),  # every token of target_new is the edited model's own choice (teacher-forced)
            pa.field("seconds", _float),  # editing and measuring
            pa.field("error", _text),  # why the method failed; the measures are null then
        ]
    ),
    # one row per timed stage
    "costs": pa.schema(
        [
            *IDENTITY,
            pa.field("stage", _text),  # edit | engine_start | swap | generate | score | perplexity | capability
            pa.field("seconds", _float),
            pa.field("num_items", _int),  # edits, prompts, texts or samples handled
            pa.field("num_bytes", _int),  # bytes written or null
            pa.field("peak_memory_bytes", _int),
            pa.field("engine", _text),
            pa.field("verified", _bool),  # swap: the engine's tensors have the checkpoint's checksums
        ]
    ),
    # one row per execution of a run
    "instances": pa.schema(
        [
            *_INSTANCE,
            pa.field("started_at", _time),
            pa.field("ended_at", _time),
            pa.field("status", _text),  # running | completed | failed | stopped
            pa.field("error", _text),
            pa.field("commit", _text),  # git commit of the code; null outside a repository
            pa.field("dirty", _bool),  # whether the code differs from the commit
            pa.field("versions", _text),  # JSON: package -> version
            pa.field("model_digest", _text),
            pa.field("requests_digest", _text),
            pa.field("hardware", _text),
            pa.field("host", _text),
            pa.field("requested_by", _text),  # e.g. command line, schedule of benchmark/nightly
            pa.field("config", _text),  # the whole run configuration, JSON
            pa.field("changes", _text),  # JSON: [{"key", "before", "after"}] since the previous instance
            pa.field("num_computed", _int),  # files of rows that this instance made
            pa.field("num_shared", _int),  # files of rows that it took over from earlier ones
            pa.field("baseline", _text),  # the instance that it was compared with
            pa.field("num_moved", _int),  # headline numbers that moved since the baseline
            pa.field("verdict", _text),  # in words
            pa.field("gate", _text),  # passed | failed; null without a gate or a baseline
            pa.field("flow_run_id", _text),
        ]
    ),
    # one row per file of rows of an instance
    "instance_files": pa.schema(
        [
            *_INSTANCE,
            pa.field("table_name", _text),
            pa.field("path", _text),  # below the warehouse, while the rows are current
            pa.field("file", _text),  # its name
            pa.field("computed", _bool),  # made by this instance
        ]
    ),
    # one row per headline number of an instance that was compared with the baseline
    "gates": pa.schema(
        [
            *_INSTANCE,
            pa.field("baseline", _text),
            pa.field("trajectory", _text),
            pa.field("label", _text),
            pa.field("order_seed", _int),  # null if all orders were compared together
            pa.field("edit_count", _int),
            pa.field("kind", _text),  # outcome | capability | perplexity
            pa.field("measure", _text),
            pa.field("protocol", _text),  # of outcomes
            pa.field("before", _float),
            pa.field("after", _float),
            pa.field("difference", _float),  # after - before; of perplexities after / before
            pa.field("low", _float),  # 95 % interval of the difference
            pa.field("high", _float),
            pa.field("n", _int),  # pairs
            pa.field("p_value", _float),
            pa.field("p_adjusted", _float),  # Holm's, over all numbers of the comparison
            pa.field("verdict", _text),  # moved | within noise | not comparable
            pa.field("reason", _text),  # why it is not comparable
            pa.field("limit", _float),  # the difference that the gate tolerates; null without one
            pa.field("failed", _bool),
        ]
    ),
    # one row per acceptance; the newest names the baseline
    "accepted": pa.schema(
        [
            *_INSTANCE,
            pa.field("accepted_at", _time),
            pa.field("accepted_by", _text),
            pa.field("note", _text),
        ]
    ),
}
"""Table name -> its Arrow schema."""

INSTANCE_TABLES = ("instances", "instance_files", "gates", "accepted")
"""Tables about executions of runs."""

RESULTS = tuple(table for table in TABLES if table not in INSTANCE_TABLES)
"""Tables of results: the rows of an earlier instance move to the history when newer ones replace them."""
