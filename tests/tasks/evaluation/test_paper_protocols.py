"""Papers' own protocols on rows whose scores were worked out by hand, and on published scores."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from overedit.editing.metrics import same_text, squad_normalize, token_accuracy
from overedit.editing.requests import EditRequest
from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.options import DatasetOptions
from overedit.tasks.engine.lazy import open_engine
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.evaluation.options import EvaluationOptions
from overedit.tasks.evaluation.outcomes import PreEdit
from overedit.tasks.evaluation.paper_protocols import PRESETS
from overedit.tasks.evaluation.probing import evaluate_checkpoint
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.oracles import ngram_entropy
from tests.support.paths import REPOSITORY

Row = dict[str, Any]

WORDS = [
    *("a", "an", "the", "The", "A", "AN", "theatre", "éa", "aé", "İstanbul", "St. Luke's", "U.S.", "straße", "ẞ", "Δx"),
    *(
        " ",
        "  ",
        "\t",
        "\n",
        "\u00a0",
        "\u2028",
        "\u3000",
        "\x1c",
        "\x0b",
        ".",
        ",",
        "'",
        "-",
        "–",
        "“",
        "_",
        "\\",
        "|",
    ),
    *("^", "]", "[", "~", "`", "€", "日本", "١٢", "²", "e\u0301", "\u0301", "😀", "Ǆ", "ﬁ", "ª", "Ⅻ", ""),
]


def at(edit_count: int, *, trajectory: str = "fast") -> Row:
    method = "none" if trajectory == "base" else f"method_of_{trajectory}"
    common = {"run": "r", "model": "m", "dataset": "d", "order_seed": 0}
    return common | {"trajectory": trajectory, "method": method, "edit_count": edit_count}


BASE = at(0, trajectory="base")


class Bench:
    """A warehouse with one trajectory, to put rows in and to ask for scores."""

    def __init__(self, root: Path) -> None:
        self.warehouse, self.parts = Warehouse(root), 0
        self.scores: dict[tuple[str, str, int], Row] = {}
        self.put("runs", [at(100) | {"label": "Fast", "status": "completed"}])

    def put(self, table: str, rows: Iterable[Row]) -> None:
        self.parts, self.scores = self.parts + 1, {}
        self.warehouse.write(table, list(rows), partition={"run": "r"}, key="k", part=str(self.parts))

    def score(self, preset: str, measure: str, edit_count: int = 10) -> Row:
        if not self.scores:
            rows = self.warehouse.query('SELECT * FROM "preset_scores"').to_pylist()
            self.scores = {(row["preset"], row["measure"], row["edit_count"]): row for row in rows}
            assert len(self.scores) == len(rows)
        return self.scores[preset, measure, edit_count]

    def outcomes(self, where: str) -> list[Row]:
        sql = f'SELECT * FROM "preset_outcomes" WHERE {where} ORDER BY position, probe_index'
        return list(self.warehouse.query(sql).to_pylist())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def generated(*answers: tuple[str, str], probe: str = "edit", place: Row | None = None, **more: Any) -> Iterator[Row]:
    """Rows of (output, target), as a run stores them that asks what the preset asks; no score of its own."""
    how = {"finish_reason": "stop", "num_tokens": 5, "stop": [".", "\n"], "max_tokens": 32, "probe_index": 0}
    for position, (output, target) in enumerate(answers, 1):
        row = {"position": position, "case_id": str(position), "probe": probe, "protocol": "generated"}
        yield (place or at(10)) | row | how | {"output": output, "target": target} | more


def forced(*ids: tuple[list[int], list[int]], probe: str = "edit", **more: Any) -> Iterator[Row]:
    for position, (greedy, target) in enumerate(ids, 1):
        row = {"position": position, "case_id": str(position), "probe": probe, "protocol": "teacher_forced"}
        yield at(10) | row | {"greedy_ids": greedy, "target_ids": target, "probe_index": 0} | more


def compared(*nlls: tuple[float, int, float, int], probe: str = "edit", **more: Any) -> Iterator[Row]:
    for position, (nll, tokens, other, tokens_other) in enumerate(nlls, 1):
        row = {"position": position, "case_id": str(position), "probe": probe, "protocol": "probability"}
        numbers = {"nll": nll, "num_tokens": tokens, "nll_other": other, "num_tokens_other": tokens_other}
        yield at(10) | row | numbers | {"probe_index": 0} | more


# ---- the table


def test_the_table_and_the_views_name_the_same_measures(bench: Bench) -> None:
    rows = bench.warehouse.query('SELECT preset, measure, unit FROM "preset_measures"').to_pylist()
    assert [(row["preset"], row["measure"]) for row in rows] == [
        (preset.name, measure.name) for preset in PRESETS.values() for measure in preset.measures
    ]
    assert {row["unit"] for row in rows} == {"share", "bits", "perplexity"}


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_a_run_can_be_asked_what_a_preset_asks(preset: Any) -> None:
    EvaluationOptions.model_validate(preset.asks.get("evaluation", {}))
    assert all(measure.definition for measure in preset.measures)


def test_what_wild_asks_is_what_its_view_assumes() -> None:
    asked = PRESETS["wild"].asks["evaluation"]
    text = (REPOSITORY / "tasks" / "warehouse" / "sql" / "views" / "preset_outcomes.sql").read_text()
    assert f"{asked['max_tokens']} AS most_tokens" in text
    assert asked["stop"] == [".", "\n"]
    assert r"'^[^.\n]*' AS before_stop, ['.', E'\n'] AS stops" in text


# ---- texts in SQL as in Python


def ask_texts(bench: Bench, expression: str, texts: list[tuple[str, ...]]) -> list[Any]:
    with bench.warehouse.connect() as connection:
        connection.execute("CREATE TABLE given (number INTEGER, one VARCHAR, other VARCHAR)")
        rows = [(number, *pair, *[""] * (2 - len(pair))) for number, pair in enumerate(texts)]
        connection.executemany("INSERT INTO given VALUES (?, ?, ?)", rows)
        return [row[0] for row in connection.execute(f"SELECT {expression} FROM given ORDER BY number").fetchall()]


def fuzzed(number: int) -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choices(WORDS, k=draw.randint(0, 9))) for _ in range(number)]


def test_sql_normalizes_as_python_does(bench: Bench) -> None:
    texts = fuzzed(1000)
    assert ask_texts(bench, "squad_normalized(one)", [(text,) for text in texts]) == list(map(squad_normalize, texts))


def test_sql_compares_as_python_does(bench: Bench) -> None:
    texts = fuzzed(600)
    pairs = [("The The", ""), ("The The", " the the "), ("a", "the"), ("?!", "?!"), ("?!", "!?"), ("", "")]
    pairs += list(zip(texts[::2], texts[1::2], strict=True)) + [(text, f" {text.upper()}!") for text in texts[:300]]
    found = ask_texts(bench, "same_text(one, other)", pairs)
    assert found == [same_text(*pair) for pair in pairs]
    assert 50 < sum(found) < len(found) - 50


def test_sql_counts_ngrams_as_python_does(bench: Bench) -> None:
    texts = ["a b a b a", "It is, so it is; it is!", "\ufeffx\u00a0y z", *fuzzed(300)]
    found = ask_texts(bench, "ngram_entropy(one)", [(text,) for text in texts])
    assert found == pytest.approx([ngram_entropy(text) for text in texts])


def test_sql_counts_tokens_as_python_does(bench: Bench) -> None:
    with bench.warehouse.connect() as connection:
        for greedy, target in (([1, 2], [1, 2]), ([1, -1, 3, 4], [1, 2, 2, 4]), ([5], [6])):
            row = connection.execute(f"SELECT token_accuracy({greedy}, {target})").fetchone()
            assert row == (token_accuracy(greedy, target),)
        assert connection.execute("SELECT token_accuracy([], []), token_accuracy(NULL, [1])").fetchone() == (None, None)


# ---- wild: prompt, stop, normalization


CUT = [
    (" the New Spain", "New Spain", 1),  # the leading blank, the article
    ("New Spain. It lies in", "New Spain", 1),  # cut by the preset where the run did not stop
    ("New Spain\nQ: Where", "New Spain", 1),
    ("New Spain, in", "New Spain", 0),  # it did not stop: no target at its start, no target within
    ("St. Luke's", "St. Luke's", 0),  # the target holds the stop string: the paper's ceiling
    ("", "The The", 0),  # nothing is no answer, also where normalization leaves nothing of the target
    ("the the", "The The", 1),
    ("", "New Spain", 0),
    (".New Spain", "New Spain", 0),
]


def test_wild_cuts_and_normalizes(bench: Bench) -> None:
    answers = [(output, target) for output, target, _ in CUT]
    bench.put("outcomes", generated(*answers, stop=[], finish_reason="eos"))
    rows = bench.outcomes("preset = 'wild'")
    assert [(row["measure"], row["score"], row["reason"]) for row in rows] == [
        ("reliability", score, None) for *_, score in CUT
    ]


def test_wild_takes_the_first_rephrase_and_counts_every_case(bench: Bench) -> None:
    lost = "score: overwritten by case 9; agreement: none"
    bench.put("outcomes", generated(("Lund", "Lund"), ("Rome", "Lund"), ("Lund", "Lund"), reason=lost))
    bench.put("outcomes", generated(("Lund", "Lund"), probe="rephrase"))
    bench.put("outcomes", generated(("Rome", "Lund"), probe="rephrase", probe_index=1))
    bench.put("outcomes", generated(("Lund", "Lund"), probe="locality"))
    found = bench.score("wild", "reliability")
    assert (found["value"], found["n"], found["label"], found["unit"]) == (pytest.approx(2 / 3), 3, "Fast", "share")
    assert (found["low"], found["high"]) == pytest.approx((0.2077, 0.9385), abs=1e-4)  # Wilson's of 2 of 3
    found = bench.score("wild", "generalization")
    assert (found["value"], found["n"]) == (1, 1)


FAR = "x" * 40
FEWER, MORE = (f"the run generated {word} than 32 tokens" for word in ("fewer", "more"))


ASKED: list[tuple[Row, str, str | None]] = [
    ({"stop": [","], "finish_reason": "stop"}, "Lund", "the run stops at other strings"),
    ({"stop": [","], "finish_reason": "stop"}, "Lund. And", None),  # it came to the preset's own first
    ({"stop": [","], "finish_reason": "eos"}, "Lund", None),
    ({"stop": ["\n\n", ". "], "finish_reason": "stop"}, "Lund", None),  # each begins with one of the preset's
    ({"stop": None, "finish_reason": "stop"}, "Lund", "the run did not store where it stops"),
    ({"max_tokens": 8, "num_tokens": 8, "finish_reason": "length"}, "Lund", FEWER),
    ({"max_tokens": 8, "num_tokens": 4, "finish_reason": "eos"}, "Lund", None),
    ({"max_tokens": None, "num_tokens": 8, "finish_reason": "length"}, "Lund", FEWER),
    ({"max_tokens": 32, "num_tokens": 8, "finish_reason": "length"}, "Lund", None),  # the context's end
    ({"max_tokens": 64, "num_tokens": 64, "finish_reason": "length"}, FAR, MORE),
    ({"max_tokens": 64, "num_tokens": 40, "finish_reason": "eos"}, f"{FAR}. y", MORE),
    ({"max_tokens": 64, "num_tokens": 40, "finish_reason": "eos"}, f"Lund. {FAR}", None),  # 4 bytes: 4 tokens
]


def test_what_a_run_did_not_ask_is_null_with_the_reason(bench: Bench) -> None:
    for edit_count, (how, output, _) in enumerate(ASKED, 1):
        bench.put("outcomes", generated(("Lund", "Lund"), (output, "Lund"), place=at(edit_count), **how))
    rows = {row["edit_count"]: row for row in bench.outcomes("preset = 'wild' AND position = 2")}
    for edit_count, (how, _, reason) in enumerate(ASKED, 1):
        assert (rows[edit_count]["score"] is None, rows[edit_count]["reason"]) == (reason is not None, reason), how
        if reason is not None:  # one case that says nothing leaves no mean of every case
            found = bench.score("wild", "reliability", edit_count)
            assert (found["value"], found["low"], found["high"], found["reason"]) == (None, None, None, reason)


def test_what_was_never_asked_is_null_with_the_reason(bench: Bench) -> None:
    bench.put("outcomes", generated(("Lund", "Lund")))
    never = {
        ("wild", "generalization"): "no rephrase prompt was asked under the protocol generated",
        ("ultraedit", "specificity"): "no locality prompt was asked under the protocol teacher_forced",
        ("counterfact", "ngram_entropy"): "no text prompt was asked under the protocol generated",
        ("counterfact", "score"): "paraphrase_score: no rephrase prompt was asked under the protocol probability",
        ("wise", "average"): "reliability: no edit prompt was asked under the protocol teacher_forced",
        ("butterfly", "perplexity"): "no perplexity was measured",
        ("butterfly", "perplexity_ratio"): "no perplexity was measured",
        ("should-we-edit", "mean"): "no general benchmark was run",
    }
    for (preset, measure), reason in never.items():
        found = bench.score(preset, measure)
        assert (found["value"], found["n"], found["reason"]) == (None, 0, reason)


def test_weights_that_are_not_numbers_answer_nothing(bench: Bench) -> None:
    why = "the weights are not finite"
    bench.put(
        "outcomes", generated(("x", "Lund"), output=None, stop=None, max_tokens=None, finish_reason=None, reason=why)
    )
    found = bench.score("wild", "reliability")
    assert (found["value"], found["reason"]) == (None, why)


def test_edit_count_0_starts_every_trajectory(bench: Bench) -> None:
    bench.put("outcomes", generated(("Lund", "Lund"), ("x", "Lund"), place=BASE))
    found = bench.score("wild", "reliability", 0)
    assert (found["trajectory"], found["method"], found["value"]) == ("fast", "method_of_fast", 0.5)


# ---- ultraedit and wise: teacher forcing


def test_ultraedit_is_token_accuracy_and_specificity_is_of_the_gold_answer(bench: Bench) -> None:
    bench.put("outcomes", forced(([1, 2, 3, 4], [1, 2, 9, 9]), ([5], [5]), reason="score: overwritten by case 9"))
    bench.put("outcomes", forced(([1, 2], [1, 3]), probe="rephrase"))
    bench.put("outcomes", forced(([7, 8], [7, 8]), ([7, 8], [1, 8]), probe="locality", agreement=0.0))
    assert bench.score("ultraedit", "efficacy")["value"] == 0.75  # mean over samples, not 3 of 5 tokens
    assert bench.score("ultraedit", "efficacy")["n"] == 2
    assert bench.score("ultraedit", "generalization")["value"] == 0.5
    assert bench.score("ultraedit", "specificity")["value"] == 0.75
    wise = {name: bench.score("wise", name) for name in ("reliability", "generalization", "locality", "average")}
    assert [row["value"] for row in wise.values()] == pytest.approx([0.75, 0.5, 0.0, 1.25 / 3])
    halves = [(row["high"] - row["low"]) / 2 for row in wise.values()]
    assert halves[3] == pytest.approx(math.hypot(*halves[:3]) / 3)
    assert wise["average"]["n"] == 5


def test_wise_locality_leaves_out_what_another_edit_changed(bench: Bench) -> None:
    bench.put("outcomes", forced(([7, 8], [7, 8]), probe="locality", agreement=0.5))
    edited = "score: the prompt was edited by case 3; agreement: the prompt was edited by case 3"
    bench.put("outcomes", forced(([7, 8], [7, 8]), probe="locality", reason=edited))
    found = bench.score("wise", "locality")
    assert (found["value"], found["n"], found["reason"]) == (0.5, 1, "the prompt was edited by another case")
    assert bench.score("ultraedit", "specificity")["n"] == 2


# ---- counterfact: two answers compared, longer texts


def test_counterfact_compares_nlls_per_token(bench: Bench) -> None:
    # means 0.5 < 1, 2 > 1, and a draw, which is no
    bench.put("outcomes", compared((1.0, 2, 1.0, 1), (2.0, 1, 2.0, 2), (3.0, 3, 1.0, 1), reason="score: overwritten"))
    bench.put("outcomes", compared((1.0, 1, 2.0, 1), probe="rephrase"))
    bench.put("outcomes", compared((2.0, 1, 1.0, 1), probe="rephrase", probe_index=1))
    bench.put("outcomes", compared((1.0, 1, 2.0, 1), probe="locality"))  # the true answer is the target here
    scores = [bench.score("counterfact", f"{name}_score") for name in ("efficacy", "paraphrase", "neighbourhood")]
    assert [row["value"] for row in scores] == pytest.approx([1 / 3, 1 / 2, 1])
    assert [row["n"] for row in scores] == [3, 2, 1]
    margin = math.exp(-1) - math.exp(-2)
    found = bench.score("counterfact", "efficacy_magnitude")
    margins = [math.exp(-0.5) - math.exp(-1), -margin, 0.0]
    mean = sum(margins) / 3
    spread = math.sqrt(sum((one - mean) ** 2 for one in margins) / 2 / 3)
    assert (found["value"], found["high"] - found["low"]) == pytest.approx((mean, 2 * 1.959964 * spread), rel=1e-5)
    assert bench.score("counterfact", "paraphrase_magnitude")["value"] == pytest.approx(0)
    found = bench.score("counterfact", "neighbourhood_magnitude")
    assert (found["value"], found["low"]) == (pytest.approx(margin), None)
    found = bench.score("counterfact", "score")
    assert (found["value"], found["n"]) == (pytest.approx(3 / (3 + 2 + 1)), 6)
    assert found["low"] == pytest.approx(3 / sum(1 / row["low"] for row in scores))
    assert found["high"] == pytest.approx(3 / sum(1 / row["high"] for row in scores))


def test_a_score_of_zero_makes_the_harmonic_mean_zero(bench: Bench) -> None:
    for probe, nll in (("edit", 3.0), ("rephrase", 1.0), ("locality", 1.0)):
        bench.put("outcomes", compared((nll, 1, 2.0, 1), probe=probe))
    found = bench.score("counterfact", "score")
    assert (found["value"], found["low"]) == (0, 0)


def test_likelihoods_that_are_not_numbers_and_answers_that_are_missing(bench: Bench) -> None:
    bench.put("outcomes", compared((math.nan, 1, 2.0, 1), probe="edit"))
    bench.put("outcomes", compared((1.0, 1, None, None), probe="locality", reason="score: no other answer"))  # type: ignore[arg-type]
    assert bench.score("counterfact", "efficacy_score")["reason"] == "the model's likelihoods are not numbers"
    assert bench.score("counterfact", "neighbourhood_score")["reason"] == "no other answer"


def test_longer_texts(bench: Bench) -> None:
    more = {"stop": [], "max_tokens": 100, "num_tokens": 100, "finish_reason": "length", "probe": "text"}
    bench.put("outcomes", generated(("a b a b a", ""), ("the the the", ""), **more))
    entropy = ngram_entropy("a b a b a")
    assert bench.score("counterfact", "ngram_entropy")["value"] == pytest.approx(entropy / 2)
    assert bench.score("counterfact", "ngram_entropy")["unit"] == "bits"
    assert bench.score("counterfact", "reference_similarity")["reason"] == "the data gives no references"
    bench.put("outcomes", generated(("x", ""), **more, similarity=0.25))
    assert bench.score("counterfact", "reference_similarity")["value"] == 0.25


# ---- butterfly, should-we-edit


def texts(place: Row, *nlls: tuple[float, int]) -> list[Row]:
    return [place | {"corpus": "c", "text_id": i, "nll": nll, "num_tokens": num} for i, (nll, num) in enumerate(nlls)]


def test_butterfly_is_the_mean_of_sentences_not_of_tokens(bench: Bench) -> None:
    two, eight = math.log(2), math.log(8)
    bench.put("perplexity", texts(BASE, (10 * two, 10), (two, 1)))
    bench.put("perplexity", texts(at(10), (10 * two, 10), (eight, 1)))
    found = bench.score("butterfly", "perplexity")
    assert (found["value"], found["n"], found["unit"]) == (pytest.approx(5), 2, "perplexity")  # (2 + 8) / 2
    corpus = bench.warehouse.query("SELECT value FROM perplexity_by_edit_count WHERE edit_count = 10").to_pylist()
    assert corpus[0]["value"] == pytest.approx(math.exp((10 * two + eight) / 11))
    assert found["high"] - 5 == pytest.approx(1.959964 * 3)  # deviations of 3 each: sd sqrt(18), over sqrt(2)
    assert found["low"] == 1  # a perplexity is never below
    ratio = bench.score("butterfly", "perplexity_ratio")
    assert ratio["value"] == pytest.approx(2.5)
    # own less 2.5 times the pristine model's 2: -3 and 3
    assert ratio["high"] - ratio["value"] == pytest.approx(1.959964 * 3 / 2)
    base = bench.score("butterfly", "perplexity_ratio", 0)
    assert (base["value"], base["low"], base["high"]) == pytest.approx((1, 1, 1))


def test_bounds_are_possible_values_and_none_of_one_question(bench: Bench) -> None:
    bench.put("outcomes", compared((0.0, 1, 50.0, 1), (0.0, 1, 50.0, 1), (0.0, 1, 0.5, 1)))
    found = bench.score("counterfact", "efficacy_magnitude")
    assert found["value"] < found["high"] == 1
    bench.put("outcomes", compared((1.0, 1, 2.0, 1), probe="rephrase"))
    bench.put("perplexity", texts(at(10), (1.0, 1)))
    for preset, measure in (("counterfact", "paraphrase_magnitude"), ("butterfly", "perplexity")):
        found = bench.score(preset, measure)
        assert (found["n"], found["low"], found["high"]) == (1, None, None)


def test_perplexity_that_is_no_number(bench: Bench) -> None:
    bench.put("perplexity", texts(at(10), (math.nan, 3), (1.0, 1)))
    for measure in ("perplexity", "perplexity_ratio"):
        found = bench.score("butterfly", measure)
        assert (found["value"], found["low"], found["high"]) == (None, None, None)
    assert bench.score("butterfly", "perplexity")["reason"] == "the model's likelihoods are not numbers"
    assert bench.score("butterfly", "perplexity_ratio")["reason"] == "the pristine model has not read these texts"


def test_should_we_edit_is_the_capability_rows(bench: Bench) -> None:
    common = {"metric": "acc", "main": True, "num_samples": 100, "stderr": None, "chance": 0.0}
    for place, values in ((BASE, (0.8, 0.6)), (at(10), (0.4, 0.2))):
        bench.put("capability", [place | common | {"task": f"t{i}", "value": v} for i, v in enumerate(values)])
    found = {name: bench.score("should-we-edit", name) for name in ("t0", "t1", "mean")}
    assert [row["value"] for row in found.values()] == pytest.approx([0.4, 0.2, 0.3])
    assert bench.score("should-we-edit", "mean", 0)["value"] == pytest.approx(0.7)


# ---- the published scores, through the preset

WriteCheckpoint = Callable[[Mapping[str, torch.Tensor]], Path]


def golden_requests(case: Mapping[str, Any], folder: Path) -> list[EditRequest]:
    """Read as the dataset's file is, which puts the "?" behind the locality prompt."""
    rows = [{**row, "alt": row["ans"], "subject": None} for row in case["requests"]]
    path = folder / "zsre.json"
    path.write_text(json.dumps(rows))
    requests, _ = load_requests(DatasetOptions(name="zsre", path=path, order_seed=None))
    return list(requests)


def test_ultraedit_equals_its_published_implementation(
    golden: Path, tmp_path: Path, checkpoint: WriteCheckpoint
) -> None:
    case = json.loads((golden / "ultraedit" / "case.json").read_text())
    tensors = load_file(golden / "ultraedit" / "tensors.safetensors")
    folder = golden / "models" / case["model"]
    weights = load_file(folder / "model.safetensors")
    deltas = {name: tensors[f"final.{name}.delta"] for name in case["hparams"]["edit_modules"]}
    edited = {f"{name}.weight": weights[f"{name}.weight"] + delta for name, delta in deltas.items()}
    requests = golden_requests(case, tmp_path)
    assert requests[0].locality[0].prompt == case["requests"][0]["loc"] + "?"
    options = EvaluationOptions.model_validate(PRESETS["ultraedit"].asks["evaluation"])

    bench = Bench(tmp_path / "warehouse")
    engine = open_engine(ModelReference(str(folder)), EngineOptions(kind="transformers"))
    before = evaluate_checkpoint(engine, requests, 0, options).rows
    engine.swap(checkpoint(edited))
    after = evaluate_checkpoint(engine, requests, len(requests), options, pre_edit=PreEdit.of(before)).rows
    engine.close()
    bench.put("outcomes", [BASE | row for row in before])
    bench.put("outcomes", [at(len(requests)) | row for row in after])

    assert not any(2 in row["target_ids"] for row in after)  # no end-of-sequence token is asked for
    names = {"ES": "efficacy", "GS": "generalization", "LS": "specificity"}
    for edit_count, expected in ((0, case["pre_edit_scores"]), (len(requests), case["final_scores"])):
        found = {name: bench.score("ultraedit", measure, edit_count)["value"] for name, measure in names.items()}
        assert found == pytest.approx(expected, abs=1 / 60)  # the tolerance that comes with them
    # the reference puts a second blank before the two answers that begin with one; a dataset's reader takes theirs away
    blank = {number for number, row in enumerate(case["requests"]) if row["ans"].startswith(" ")}
    assert blank == {19, 23}
    lists = {"ES": "edit_tuples", "GS": "equiv_tuples", "LS": "unrel_tuples"}
    for name, measure in names.items():
        mine = {
            row["position"] - 1: row["score"]
            for row in bench.outcomes(f"measure = '{measure}' AND preset = 'ultraedit' AND edit_count > 0")
        }
        for rows, theirs in zip(case["batch_rows"][lists[name]], case["per_sample_scores"][name], strict=True):
            for numbers, scores in zip(rows, theirs, strict=True):
                expected = dict(zip(numbers, scores, strict=True))
                for number in expected.keys() - (blank if name != "LS" else set()):
                    assert mine[number] == pytest.approx(expected[number], abs=1e-6)


def test_counterfact_rephrases_are_asked_as_they_are(tmp_path: Path) -> None:
    """An irrelevant prefix, then the same prompt: generalization is robustness to the prefix there."""
    row = {"prompt": "Ann works in", "target_new": "Rome", "rephrase_prompt": "Gypsies. Ann works in"}
    path = tmp_path / "counterfact.json"
    path.write_text(json.dumps([row]))
    requests, _ = load_requests(DatasetOptions(name="counterfact", path=path))
    assert next(iter(requests)).rephrase_prompts == ("Gypsies. Ann works in",)
