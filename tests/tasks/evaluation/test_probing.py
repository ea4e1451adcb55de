from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from overedit.editing.requests import EditRequest, Probe
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.evaluation.options import EvaluationOptions
from overedit.tasks.evaluation.outcomes import PreEdit
from overedit.tasks.evaluation.probing import EvaluationResult, evaluate_checkpoint
from overedit.tasks.evaluation.questions import sampled_positions, unreachable_cases
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.warehouse.tables import IDENTITY, TABLES
from tests.support.fake_engine import FakeEngine, word_id
from tests.support.tiny_models import llama_config

CASE = EditRequest(
    case_id="c1",
    prompt="Paris is in",
    target_new="New Spain",
    target_true="France",
    rephrase_prompts=("Paris lies in", "Paris, city in"),
    locality=(Probe(prompt="Rome is in", answer="Italy"), Probe(prompt="Oslo is in")),
    portability=(Probe(prompt="Parisians speak", answer="Spanish"),),
)
BEFORE = {
    "Paris is in": "France",
    "Paris lies in": "the France",
    "Paris, city in": "Gaul",
    "Rome is in": "Italy",
    "Oslo is in": "Norway",
    "Parisians speak": "French",
}
AFTER = BEFORE | {
    "Paris is in": " New Spain",
    "Paris lies in": "New France",
    "Rome is in": "Spain",
    "Oslo is in": "NORWAY!",
}


def evaluated(
    engine: FakeEngine, requests: Sequence[EditRequest], edit_count: int, pre: FakeEngine | None = None, **options: Any
) -> dict[tuple[str, str, int, str], dict[str, Any]]:
    chosen = EvaluationOptions(**options)
    pre_edit = PreEdit.of(evaluate_checkpoint(pre, requests, 0, chosen).rows) if pre else None
    result = evaluate_checkpoint(engine, requests, edit_count, chosen, pre_edit=pre_edit)
    rows = {(row["case_id"], row["probe"], row["probe_index"], row["protocol"]): row for row in result.rows}
    assert len(rows) == len(result.rows)
    return rows


def judged(row: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return row["score"], row["agreement"], row["reason"]


def test_generated_rows() -> None:
    rows = evaluated(FakeEngine(AFTER), [CASE], 1, FakeEngine(BEFORE), protocols=("generated",))
    assert {key[1:3]: judged(row) for key, row in rows.items()} == {
        ("edit", 0): (1.0, 0.0, None),
        ("rephrase", 0): (0.0, 0.0, None),
        ("rephrase", 1): (0.0, 1.0, None),
        ("locality", 0): (0.0, 0.0, None),
        ("locality", 1): (None, 1.0, "score: the dataset gives no answer"),
        ("portability", 0): (0.0, 1.0, None),
    }
    row = rows["c1", "edit", 0, "generated"]
    assert (row["output"], row["num_tokens"], row["finish_reason"]) == (" New Spain", 2, "stop")
    assert (row["position"], row["target"], row["prompt"]) == (1, "New Spain", "Paris is in")
    assert row["greedy_ids"] is row["nll"] is row["other"] is None


def test_teacher_forced_rows() -> None:
    rows = evaluated(FakeEngine(AFTER), [CASE], 1, FakeEngine(BEFORE), protocols=("teacher_forced",))
    no_answer = "the dataset gives no answer"
    assert {key[1:3]: judged(row) for key, row in rows.items()} == {
        ("edit", 0): (1.0, 0.0, None),
        ("rephrase", 0): (0.5, 0.5, None),  # greedy "New France", before "the France", the target "New Spain"
        ("rephrase", 1): (0.0, 1.0, None),
        ("locality", 0): (0.0, 0.0, None),
        ("locality", 1): (None, None, f"score: {no_answer}; agreement: {no_answer}"),
        ("portability", 0): (0.0, 1.0, None),
    }
    row = rows["c1", "rephrase", 0, "teacher_forced"]
    assert row["target_ids"] == [word_id("New"), word_id("Spain")]
    assert row["greedy_ids"] == [word_id("New"), word_id("France")]
    assert (row["num_tokens"], row["output"]) == (2, None)


def test_probability_compares_means_per_token() -> None:
    nlls = {("Paris is in", "New Spain"): (1.0, 2.0), ("Paris is in", "France"): (1.6,)}  # 1.5 against 1.6 a token
    rows = evaluated(FakeEngine(AFTER, nlls), [CASE], 1, FakeEngine(BEFORE), protocols=("probability",))
    row = rows["c1", "edit", 0, "probability"]
    assert judged(row) == (1.0, 0.0, None)  # before: 2 and 2 a token of "New Spain" against 1 of "France"
    assert (row["nll"], row["num_tokens"], row["other"], row["nll_other"], row["num_tokens_other"]) == (
        3.0,
        2,
        "France",
        1.6,
        1,
    )
    # gold "Italy" was preferred to "New Spain" before; now both have 2 a token, and a draw counts as no
    assert judged(rows["c1", "locality", 0, "probability"]) == (0.0, 0.0, None)
    assert rows["c1", "locality", 0, "probability"]["other"] == "New Spain"
    score, agreement, reason = judged(rows["c1", "portability", 0, "probability"])
    assert (score, agreement) == (None, None)
    assert reason.startswith("score: the dataset gives no other answer")
    assert rows["c1", "portability", 0, "probability"]["nll"] == 2.0


def test_what_is_not_a_number_is_not_scored() -> None:
    nan = {("Paris is in", "New Spain"): (math.nan, 1.0)}
    rows = evaluated(
        FakeEngine(AFTER, nan), [CASE], 1, FakeEngine(BEFORE), protocols=("probability",), probes=("edit",)
    )
    why = "the model's likelihoods are not numbers"
    assert judged(rows["c1", "edit", 0, "probability"]) == (None, None, f"score: {why}; agreement: {why}")
    rows = evaluated(
        FakeEngine(AFTER), [CASE], 1, FakeEngine(BEFORE, nan), protocols=("probability",), probes=("edit",)
    )
    assert judged(rows["c1", "edit", 0, "probability"]) == (1.0, None, f"agreement: {why}")


def test_equal_answers_say_nothing_of_preference() -> None:
    case = CASE.model_copy(update={"target_true": "the new spain"})
    row = evaluated(FakeEngine(AFTER), [case], 1, FakeEngine(BEFORE))["c1", "edit", 0, "probability"]
    assert row["score"] is None
    assert "the two answers are the same" in row["reason"]


def test_the_pristine_model_agrees_with_itself_and_is_asked_everything() -> None:
    second = EditRequest(case_id="c2", prompt="Rome is in", target_new="Gaul")
    rows = evaluated(FakeEngine(BEFORE), [CASE, second], 0)
    assert {key[0] for key in rows} == {"c1", "c2"}
    assert rows["c2", "edit", 0, "generated"]["position"] == 2
    assert rows["c1", "locality", 0, "generated"]["score"] == 1.0  # not edited yet
    assert all(row["agreement"] == 1.0 for key, row in rows.items() if key[3] == "generated")
    assert rows["c1", "edit", 0, "probability"]["agreement"] == 1.0


def test_without_pre_edit_answers_agreement_is_null() -> None:
    rows = evaluated(FakeEngine(AFTER), [CASE], 1, protocols=("generated",), probes=("edit",))
    assert judged(rows["c1", "edit", 0, "generated"]) == (1.0, None, "agreement: the pristine model was not asked")


def test_pre_edit_answers_come_from_stored_rows() -> None:
    rows = evaluate_checkpoint(FakeEngine(BEFORE), [CASE], 0, EvaluationOptions()).rows
    schema = pa.schema([field for field in TABLES["outcomes"] if field not in IDENTITY])
    assert set(rows[0]) == set(schema.names)
    stored = pa.Table.from_pylist(rows, schema=schema).to_pylist()
    assert PreEdit.of(stored) == PreEdit.of(rows)


def test_overwritten_cases_are_asked_but_not_scored() -> None:
    requests = [
        EditRequest(case_id="a", prompt="p", target_new="x", target_true="t", rephrase_prompts=("q",)),
        EditRequest(case_id="b", prompt=" p", target_new="y", target_true="t"),
        EditRequest(case_id="c", prompt="p", target_new="x", target_true="t"),
    ]
    pre = FakeEngine({"p": "t", "q": "t", " p": "t"})
    engine = FakeEngine({"p": "x", "q": "x", " p": "y"})
    after_one = evaluated(engine, requests, 1, pre)
    assert judged(after_one["a", "edit", 0, "generated"]) == (1.0, 0.0, None)
    after_two = evaluated(engine, requests, 2, pre)
    for protocol in ("generated", "teacher_forced", "probability"):
        for probe in ("edit", "rephrase"):
            assert judged(after_two["a", probe, 0, protocol]) == (None, 0.0, "score: overwritten by case b")
    assert after_two["a", "edit", 0, "generated"]["output"] == "x"
    assert after_two["b", "edit", 0, "generated"]["score"] == 1.0
    after_three = evaluated(engine, requests, 3, pre)
    assert after_three["a", "edit", 0, "generated"]["score"] == 1.0  # its target holds again
    assert judged(after_three["b", "edit", 0, "generated"]) == (None, 0.0, "score: overwritten by case c")


def test_probes_of_edited_prompts_are_not_held_against_the_model() -> None:
    other = EditRequest(case_id="c2", prompt="Rome is in", target_new="Spain")
    rephrased = EditRequest(case_id="c3", prompt="Paris lies in", target_new="Gaul")
    rows = evaluated(FakeEngine(AFTER), [CASE, other, rephrased], 3, FakeEngine(BEFORE), protocols=("generated",))
    why = "the prompt was edited by case c2"
    assert judged(rows["c1", "locality", 0, "generated"]) == (None, None, f"score: {why}; agreement: {why}")
    assert judged(rows["c1", "rephrase", 0, "generated"]) == (None, 0.0, "score: the prompt was edited by case c3")
    earlier = evaluated(FakeEngine(AFTER), [CASE, other, rephrased], 1, FakeEngine(BEFORE), protocols=("generated",))
    assert judged(earlier["c1", "locality", 0, "generated"]) == (0.0, 0.0, None)


def test_nothing_is_asked_twice() -> None:
    twin = CASE.model_copy(update={"case_id": "c2"})
    engine = FakeEngine(AFTER)
    done: list[tuple[int, int]] = []
    result = evaluate_checkpoint(engine, [CASE, twin], 2, EvaluationOptions(), progress=lambda *step: done.append(step))
    assert len(engine.asked) == len(set(engine.asked))
    # six prompts; two answers of edit and two rephrases, two of the first locality, one of portability
    assert engine.calls == [("generate", 6), ("score", 9)]
    assert done == [(6, 15), (15, 15)]
    assert [(cost.stage, cost.num_items) for cost in result.costs] == [("generate", 6), ("score", 9)]
    assert all(cost.seconds >= 0 for cost in result.costs)


def test_only_what_a_protocol_needs_is_asked() -> None:
    engine = FakeEngine(AFTER)
    assert [
        c.stage for c in evaluate_checkpoint(engine, [CASE], 1, EvaluationOptions(protocols=("generated",))).costs
    ] == ["generate"]
    forced = EvaluationOptions(protocols=("teacher_forced",), probes=("edit",))
    assert evaluate_checkpoint(engine, [CASE], 1, forced).costs[0].num_items == 1
    few = EvaluationOptions(protocols=("generated",), max_rephrase=1, max_locality=1, max_portability=0)
    assert [row["probe"] for row in evaluate_checkpoint(engine, [CASE], 1, few).rows] == [
        "edit",
        "rephrase",
        "locality",
    ]


def test_samples_hold_the_first_the_last_and_evenly_between() -> None:
    assert sampled_positions(5, None) == [1, 2, 3, 4, 5]
    assert sampled_positions(5, 9) == [1, 2, 3, 4, 5]
    assert sampled_positions(100, 4) == [1, 34, 67, 100]
    assert sampled_positions(10, 1) == [10]
    assert sampled_positions(0, 3) == []
    for count, sample in ((1000, 999), (17, 16), (1_000_000, 7), (12, 5)):
        positions = sampled_positions(count, sample)
        assert len(set(positions)) == sample
        assert (positions[0], positions[-1]) == (1, count)
        gaps = {after - before for before, after in pairwise(positions)}
        assert max(gaps) - min(gaps) <= 1


def test_a_sample_is_asked_at_a_checkpoint_but_all_of_the_pristine_model() -> None:
    requests = [EditRequest(case_id=str(i), prompt="Rome is in", target_new="Italy") for i in range(1, 11)]
    options = {"sample": 3, "protocols": ("generated",)}
    assert [key[0] for key in evaluated(FakeEngine(BEFORE), requests, 10, **options)] == ["1", "5", "10"]
    assert len(evaluated(FakeEngine(BEFORE), requests, 0, **options)) == 10


def test_the_pristine_model_is_asked_what_the_run_will_ask() -> None:
    requests = [EditRequest(case_id=str(i), prompt="Rome is in", target_new="Italy") for i in range(1, 11)]
    options = EvaluationOptions(sample=2, protocols=("generated",), probes=("edit",))
    before = evaluate_checkpoint(FakeEngine(BEFORE), requests, 0, options, edit_counts=(1, 4, 9))
    assert [row["case_id"] for row in before.rows] == ["1", "4", "9"]
    for count in (1, 4, 9):
        after = evaluate_checkpoint(FakeEngine(BEFORE), requests, count, options, pre_edit=PreEdit.of(before.rows))
        assert [row["agreement"] for row in after.rows] == [1.0] * min(count, 2)


def test_streamed_requests_give_the_rows_of_those_in_memory() -> None:
    """Prompts are overwritten, edited under another phrasing, and touched by edits that are not asked."""
    twin = CASE.model_copy(update={"case_id": "c2", "target_new": "Nowhere"})
    probe = EditRequest(case_id="c3", prompt="Rome  is in", target_new="Gaul", locality=CASE.locality)
    other = EditRequest(case_id="c4", prompt="Paris, city in", target_new="Spain")
    requests = [CASE, other, probe, twin, CASE.model_copy(update={"case_id": "c5"}), other]
    for count, sample in ((0, None), (4, None), (4, 2), (6, None), (6, 2), (6, 3)):
        options = EvaluationOptions(sample=sample)
        plain, stored = (
            evaluate_checkpoint(FakeEngine(BEFORE | {"Rome  is in": "Italy"}), those, count, options)
            for those in (requests, RequestStore(requests))
        )
        assert stored.rows == plain.rows
        reasons = {row["case_id"]: row["reason"] for row in plain.rows if row["probe"] == "edit"}
        assert (reasons["c1"] or "").startswith("score: overwritten by case c2") == (count == 4)
        edited = [row["reason"] for row in plain.rows if row["probe"] == "locality" and row["prompt"] == "Rome is in"]
        assert all("edited by case c3" in (reason or "") for reason in edited) == (count > 0)


@pytest.mark.parametrize("edit_count", [-1, 2])
def test_edit_counts_beyond_the_plan_are_refused(edit_count: int) -> None:
    with pytest.raises(ValueError, match=f"edit_count: {edit_count} is not between 0 and the 1 planned edits"):
        evaluate_checkpoint(FakeEngine(AFTER), [CASE], edit_count, EvaluationOptions())


@pytest.mark.parametrize(
    "options", [{"protocols": ()}, {"protocols": ("judge",)}, {"probes": ("edits",)}, {"sample": 0}, {"samples": 5}]
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EvaluationOptions(**options)


def test_targets_that_generation_cannot_reach() -> None:
    requests = [EditRequest(case_id=t, prompt="p", target_new=t) for t in ("St. Luke's", "Paris", "Bernsen Jr.")]
    assert unreachable_cases(requests, EvaluationOptions()) == ["St. Luke's"]
    assert unreachable_cases(requests, EvaluationOptions(stop=("\n",))) == []


def test_time_grows_with_the_number_of_cases_only() -> None:
    def run(num_cases: int) -> float:
        requests = [
            EditRequest(
                case_id=str(i),
                prompt=f"a{i}",
                target_new="x",
                target_true="y",
                rephrase_prompts=(f"b{i}",),
                locality=(Probe(prompt=f"c{i}", answer="z"), Probe(prompt=f"d{i}", answer="z")),
                portability=(Probe(prompt=f"e{i}", answer="w"),),
            )
            for i in range(num_cases)
        ]
        answers = {f"{letter}{i}": "x" for i in range(num_cases) for letter in "abcde"}
        begun = time.process_time()
        evaluate_checkpoint(FakeEngine(answers), requests, num_cases, EvaluationOptions())
        return time.process_time() - begun

    assert run(1000) < 5


def tiny_model(folder: Path) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    words = sorted(
        {word for prompt, answer in BEFORE.items() for word in f"{prompt} {answer}".split()} | {"New", "Spain"}
    )
    vocabulary = {word: place for place, word in enumerate(["</s>", "<unk>", *words, "Spanish"])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    config = llama_config(
        len(vocabulary), width=16, mlp_width=32, context=64, num_key_value_heads=2, eos_token_id=0, bos_token_id=None
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_with_a_real_engine(tmp_path: Path) -> None:
    from overedit.tasks.engine.options import EngineOptions
    from overedit.tasks.engine.transformers_engine import TransformersEngine

    engine = TransformersEngine(ModelReference(str(tiny_model(tmp_path))), EngineOptions(kind="transformers"))
    options = EvaluationOptions(max_tokens=4)
    before: EvaluationResult = evaluate_checkpoint(engine, [CASE], 0, options)
    again = evaluate_checkpoint(engine, [CASE], 1, options, pre_edit=PreEdit.of(before.rows))
    assert [row["agreement"] for row in again.rows] == [row["agreement"] for row in before.rows]
    assert {row["agreement"] for row in again.rows} == {1.0, None}
    assert all(row["reason"] for row in again.rows if row["score"] is None or row["agreement"] is None)
    edit = next(row for row in again.rows if row["protocol"] == "probability")
    assert edit["num_tokens"] == 2
    assert edit["nll"] > 0
    assert (edit["nll"] / 2 < edit["nll_other"]) == (edit["score"] == 1.0)
    engine.close()
