"""Inputs near the real formats, and far from them."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

COLUMNS = (
    "prompt", "target_new", "subject", "case_id", "locality", "locality_answers", "portability", "rephrase_prompts",
    "target_true", "src", "alt", "answers", "loc", "loc_ans", "requested_rewrite", "paraphrase_prompts", "update",
    "ans", "mhop", "answer", "ground_truth", "str",
)  # fmt: skip
KEYS = (
    "name", "home", "model", "dataset", "methods", "edit_counts", "turn_size", "order_seeds", "evaluation", "engine",
    "perplexity", "capability", "method", "site", "sites", "path", "limit", "columns", "kind", "epochs", "layers",
    "covariance", "corpus", "0", "1", "9",
)  # fmt: skip
WORDS = (
    "ft_m", "memit", "locft_bf", "file", "zsre", "pocket", "counterfact", "auto", "transformers", "1.down_proj", "r",
    "{}", "The capital of {} is", "Land1", "../..", "a\0b", "\x1b[2J", "\ud800", "𝒳", "NaN", "1e999", "-1", "=",
)  # fmt: skip

texts = st.one_of(st.sampled_from(WORDS), st.text(max_size=12), st.just("x" * 300))
odd_texts = st.one_of(texts, st.text(st.characters(), max_size=5), st.just("\udc80"))
numbers = st.one_of(
    st.integers(-2, 12), st.integers(), st.just(10**4000), st.floats(allow_nan=False, allow_infinity=False)
)
scalars = st.one_of(st.none(), st.booleans(), numbers, odd_texts)


def nested(keys: tuple[str, ...]) -> st.SearchStrategy[Any]:
    """Values of lists and objects, mostly of known keys."""
    known = st.one_of(st.sampled_from(keys), odd_texts)
    return st.recursive(
        scalars,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(known, inner, max_size=4)),
        max_leaves=8,
    )


values = nested(COLUMNS)


def mostly(right: Any, other: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A right value, and now and then another."""
    return st.one_of(st.just(right), st.just(right), st.just(right), other)


long_texts = st.just("x" * 120_000)
row = st.fixed_dictionaries(
    {"prompt": mostly("The capital of Land1 is", values | long_texts), "target_new": mostly("Paris", values)},
    optional={
        "subject": mostly("Land1", values),
        "case_id": st.one_of(st.integers(0, 99), values, long_texts),
        "locality": mostly([{"prompt": "The river is", "answer": "Orm"}], values),
        "target_true": mostly("Rome", values),
        "rephrase_prompts": mostly(["Land1 has the capital"], values),
        "portability": values,
        "extra": values,
    },
)
mend_row = st.fixed_dictionaries(
    {"src": mostly("Who rules Land1?", values), "alt": mostly("Orla", values), "loc": mostly("who sings", values)},
    optional={"loc_ans": mostly("Abba", values), "answers": mostly(["Bo"], values), "rephrase": values},
)
rome_row = st.fixed_dictionaries(
    {
        "requested_rewrite": mostly(
            {"prompt": "{} is in", "subject": "Land1", "target_new": {"str": "Asia"}, "target_true": {"str": "Africa"}},
            values,
        ),
        "neighborhood_prompts": mostly(["Land2 is in"], values),
    }
)
rows = st.one_of(
    st.lists(row, max_size=4),
    st.lists(mend_row, max_size=4),
    st.lists(rome_row, max_size=4),
    st.lists(st.one_of(row, mend_row, st.dictionaries(odd_texts, values, max_size=3), values), max_size=4),
)


def as_json(value: Any) -> bytes:
    """JSON, as far as it goes: NaN stays, half surrogates become escapes."""
    return json.dumps(value).encode()


json_files = rows.map(as_json)
jsonl_files = rows.map(lambda found: b"\n".join(as_json(item) for item in found))
ODDITIES = (
    b'[{"prompt": "a", "prompt": "b", "target_new": "c"}]',
    b'[{"prompt": "a", "target_new": NaN}]',
    b'[{"prompt": "a", "target_new": ' + b"9" * 5000 + b"}]",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'[{"prompt": ' + b"[" * 900 + b"]" * 900 + b', "target_new": "x"}]',
    b"\x1f\x8b\x08\x00" + bytes(40),
    b"\x80\x04\x95" + b"." * 20,
    b"PAR1" * 4,
    "[]".encode("utf-16"),
    b"\xef\xbb\xbf[]",
    b"\x00" * 100,
    b'"\\ud800"',
)


@st.composite
def damaged(draw: st.DrawFn, content: st.SearchStrategy[bytes]) -> bytes:
    """A content that was cut, and of which a few bytes were changed."""
    whole = bytearray(draw(content))
    for _ in range(draw(st.integers(0, 4))):
        if whole:
            whole[draw(st.integers(0, len(whole) - 1))] = draw(st.integers(0, 255))
    return bytes(whole[: draw(st.integers(0, len(whole)))] if draw(st.booleans()) else whole)


_TYPES = (
    pa.string(), pa.large_string(), pa.binary(), pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us", tz="UTC"),
    pa.date32(), pa.decimal128(5, 2), pa.list_(pa.string()), pa.struct([("prompt", pa.string())]), pa.null(),
    pa.map_(pa.string(), pa.string()), pa.dictionary(pa.int8(), pa.string()), pa.duration("s"),
)  # fmt: skip
_SAMPLES: dict[str, Any] = {"string": "The capital", "large_string": "City", "binary": b"\xff"}


@st.composite
def parquet_files(draw: st.DrawFn) -> bytes:
    """A Parquet file of a few columns, of any types."""
    num_rows = draw(st.integers(0, 3))
    names = draw(st.lists(st.sampled_from(COLUMNS[:12]), min_size=1, max_size=5))
    arrays = []
    for _ in names:
        kind = draw(st.sampled_from(_TYPES))
        sample = _SAMPLES.get(str(kind)) if draw(st.booleans()) else None
        arrays.append(pa.array([sample] * num_rows, type=kind))
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, names=names), stream, compression="none")
    return stream.getvalue()


datasets = st.one_of(
    json_files,
    jsonl_files,
    damaged(json_files),
    damaged(jsonl_files),
    parquet_files(),
    damaged(parquet_files()),
    st.sampled_from(ODDITIES),
    st.binary(max_size=60),
)

configuration_values = nested(KEYS)
RIGHT: dict[str, Any] = {
    "name": "r",
    "dataset": {"name": "file", "path": "rows.json"},
    "methods": [{"method": "ft_m", "site": "1.down_proj"}],
    "edit_counts": [1, 10],
}
configurations = st.one_of(
    st.dictionaries(st.one_of(st.sampled_from(KEYS), odd_texts), configuration_values, max_size=2).map(
        lambda found: RIGHT | found
    ),
    st.dictionaries(st.sampled_from(KEYS), configuration_values, max_size=3).map(
        lambda found: RIGHT | {"methods": [{"method": "memit"} | found]}
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "turn_size": st.integers(-1, 9),
            "edit_counts": st.lists(st.integers(-1, 9), max_size=3),
            "order_seeds": st.lists(numbers, max_size=3),
            "home": texts,
            "model": texts,
            "methods": st.lists(st.sampled_from(["ft_m", "memit", "rome", "ft_l", "none"]), max_size=3),
        },
    ).map(lambda found: RIGHT | found),
)
YAML_ODDITIES = (
    "a: &x [1]\nb: *x\n", "a: 1\na: 2\n", "a: " + "[" * 2000, "a: 2001-99-99", "a: " + "9" * 5000,
    "a: 0x" + "f" * 6000, "turn_size: 0x" + "f" * 6000, "? [1]\n: 2", "? {a: 1}\n: 2", "<<: {a: 1}",
    "a: !!python/name:os.system", "a: !!binary x", "a: !!set {1, 2}", "1: 2", "a: !!timestamp x", "--- a\n--- b",
    "\x00", "%YAML 9.9\n---\na: 1", "a: 1:1:1:1:" + "59:" * 900 + "1", "? ? ? a", "- " * 300 + "a", "a: .nan",
    "!!omap [a: 1]", "a: !!int x", "a: !!float x", "a: 09", "a: 0b", "a: 0x_", "a: -", "a: +.", "!!map a: 1",
)  # fmt: skip
yaml_texts = st.one_of(
    st.sampled_from(YAML_ODDITIES),
    st.text(alphabet="ab:-[]{}&*!?|>'\"#%@,\n\t 01.xo_", max_size=40),
    st.text(max_size=20),
)
settings_given = st.one_of(
    st.builds(
        lambda path, value: f"{'.'.join(path)}={value}",
        st.lists(st.one_of(st.sampled_from(KEYS), odd_texts), min_size=1, max_size=4),
        st.one_of(yaml_texts, odd_texts),
    ),
    odd_texts,
    st.just("a." * 5000 + "a=1"),
    st.just("methods.²=1"),
)
