from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from overedit.tasks.engine.base import Engine
from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.evaluation.capability.scoring import headline, measure_capability
from overedit.tasks.evaluation.capability.task_loading import TaskLoader, load_tasks
from overedit.tasks.evaluation.options import PerplexityOptions
from overedit.tasks.evaluation.perplexity import corpus_texts, measure_perplexity
from overedit.tasks.warehouse.tables import IDENTITY, TABLES
from tests.support.lm_eval_tasks import CHOICE, GENERATION, write_tasks
from tests.support.small_model import COLOURS, FACTS, changed


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> CapabilityOptions:
    """A multiple-choice and a generation task of 40 items each."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = []
    for prompt, answer in FACTS[:40]:
        choices = [answer, *[colour for colour in COLOURS if colour != answer][:3]]
        rows.append({"prompt": prompt, "answer": answer, "choices": choices, "label": 0})
    write_tasks(folder, rows, small_choice=CHOICE, small_generation=GENERATION)
    return CapabilityOptions(tasks=("small_choice", "small_generation"), include_path=folder, trust_task_code=True)


def fits(table: str, rows: list[dict[str, Any]]) -> None:
    """The rows have the table's columns, but for the identity, and nothing else."""
    schema = pa.schema([field for field in TABLES[table] if field not in IDENTITY])
    assert all(set(row) == set(schema.names) for row in rows)
    pa.Table.from_pylist(rows, schema=schema)


def test_the_headline_is_the_first_of_the_list_that_the_task_has() -> None:
    assert headline(["acc,none", "acc_norm,none"], {}) == "acc_norm,none"
    assert headline(["f1,none", "exact_match,flexible", "exact_match,strict"], {}) == "exact_match,flexible"
    assert headline(["perplexity,none", "acc,none"], {"perplexity": False, "acc": True}) == "acc,none"
    assert headline(["f1,none"], {"f1": False}) is None
    assert headline(["word_perplexity,none"], {}) is None


def test_scores_and_samples_are_rows_of_the_tables(transformers_engine: Engine, options: CapabilityOptions) -> None:
    scores, samples = measure_capability(transformers_engine, options)
    fits("capability", scores)
    fits("capability_samples", samples)
    by_task = {row["task"]: row for row in scores}
    assert set(by_task) == {"small_choice", "small_generation"} and all(row["main"] for row in scores)
    assert [by_task[task]["metric"] for task in sorted(by_task)] == ["acc", "exact_match,answer"]
    choice = by_task["small_choice"]
    values = [row["value"] for row in samples if row["task"] == "small_choice"]
    assert len(values) == choice["num_samples"] == 40 and choice["chance"] == 0.25
    mean = sum(values) / 40
    assert choice["value"] == pytest.approx(mean) and mean > 0.5, "it knows most of the facts"
    assert choice["stderr"] == pytest.approx(math.sqrt(mean * (1 - mean) / 39))
    assert by_task["small_generation"]["chance"] is None
    answers = transformers_engine.generate([prompt for prompt, _ in FACTS[:40]], max_tokens=8, stop=(".",))
    rows = sorted((row for row in samples if row["task"] == "small_generation"), key=lambda row: row["doc_id"])
    assert [row["response"] for row in rows] == [answer.text.strip() for answer in answers]
    assert [row["target"] for row in rows] == [answer for _, answer in FACTS[:40]]
    assert [row["value"] for row in rows] == [float(row["response"] == row["target"]) for row in rows]


def test_likelihoods_are_those_of_the_engine(transformers_engine: Engine, options: CapabilityOptions) -> None:
    _, samples = measure_capability(transformers_engine, options.model_copy(update={"tasks": ("small_choice",)}))
    for (prompt, answer), row in zip(FACTS[:40], samples, strict=True):
        choices = [answer, *[colour for colour in COLOURS if colour != answer][:3]]
        nlls = [sum(score.token_nlls) for score in transformers_engine.score([(prompt, c) for c in choices])]
        assert row["target"] == answer and row["response"] == choices[nlls.index(min(nlls))]


def test_chance_can_be_given_and_items_limited(transformers_engine: Engine, options: CapabilityOptions) -> None:
    few = options.model_copy(update={"limit": 5, "num_fewshot": 0})
    scores, samples = measure_capability(transformers_engine, few, chance={"small_generation": 0.3})
    assert [row["num_samples"] for row in scores] == [5, 5] and len(samples) == 10
    assert {row["task"]: row["chance"] for row in scores} == {"small_choice": 0.25, "small_generation": 0.3}


def test_tasks_are_loaded_once(options: CapabilityOptions) -> None:
    loader = TaskLoader(options)
    assert loader.load() is loader.load()


@pytest.mark.usefixtures("own_tasks_read_once")
@pytest.mark.slow  # all of lm-eval's own tasks are looked through
@pytest.mark.long
def test_unknown_tasks_are_named(options: CapabilityOptions) -> None:
    with pytest.raises(ValueError, match=r"no task 'small_choise'; similar names: .*small_choice"):
        load_tasks(options.model_copy(update={"tasks": ("small_choise",)}))


def test_unknown_folders_and_options_are_named(options: CapabilityOptions, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no folder"):
        load_tasks(options.model_copy(update={"include_path": tmp_path / "none"}))
    with pytest.raises(ValueError, match="num_shots"):
        CapabilityOptions(num_shots=3)  # type: ignore[call-arg]


@pytest.mark.slow
def test_lm_eval_says_the_same_through_vllm_and_follows_its_weights(
    vllm_engine: Engine,
    transformers_engine: Engine,
    options: CapabilityOptions,
    small_weights: dict[str, torch.Tensor],
    checkpoint: Any,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = measure_capability(vllm_engine, options)
    assert before == measure_capability(transformers_engine, options)
    edited = checkpoint(changed(small_weights, "model.layers.0.mlp.down_proj.weight", by=20.0))
    for engine in (vllm_engine, transformers_engine):
        engine.swap(edited)
    after = measure_capability(vllm_engine, options)
    assert after == measure_capability(transformers_engine, options)
    assert all(now["value"] < then["value"] for now, then in zip(after.scores, before.scores, strict=True))
    assert "it/s" not in "".join(capfd.readouterr()), "progress is the flow's to show"


def test_lm_eval_meets_weights_that_are_no_numbers(
    transformers_engine: Engine, options: CapabilityOptions, small_weights: dict[str, torch.Tensor], checkpoint: Any
) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    transformers_engine.swap(checkpoint({name: torch.full_like(small_weights[name], float("nan"))}))
    scores, samples = measure_capability(transformers_engine, options)
    assert {row["task"]: row["value"] for row in scores}["small_generation"] == 0
    assert all(row["response"] is None for row in samples if row["task"] == "small_choice")


# perplexity


def test_perplexity_rows_sum_the_tokens_of_each_text(transformers_engine: Engine) -> None:
    texts = [prompt for prompt, _ in FACTS[:3]]
    rows = measure_perplexity(transformers_engine, texts, "facts")
    fits("perplexity", rows)
    nlls = transformers_engine.token_nlls(texts)
    assert [row["num_tokens"] for row in rows] == [len(values) for values in nlls]
    assert [row["nll"] for row in rows] == pytest.approx([sum(values) for values in nlls])
    assert [row["text_id"] for row in rows] == [0, 1, 2] and {row["corpus"] for row in rows} == {"facts"}


def test_corpora_of_several_kinds(tmp_path: Path) -> None:
    kinds = {
        "lines.txt": "one\n\n two \nthree\n",
        "me_ppl.json": '[{"Corpus": "C4", "Text": "one"}, {"Corpus": "C4", "Text": " two"}, {"Text": "three"}]',
        "rows.jsonl": '{"text": "one"}\n{"text": "two"}\n{"text": "three"}\n',
    }
    for name, content in kinds.items():
        (tmp_path / name).write_text(content)
        assert corpus_texts(PerplexityOptions(corpus=tmp_path / name)) == ["one", "two", "three"]
    assert corpus_texts(PerplexityOptions(corpus=tmp_path / "lines.txt", limit=2)) == ["one", "two"]
    assert corpus_texts(PerplexityOptions()) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "there is no file"),
        ("missing.json", None, "does not exist"),
        ("empty.txt", "\n \n", "holds no text"),
        ("rows.json", '[{"text": "one"}, {"body": "two"}]', "row 2 .* has no text"),
    ],
)
def test_a_bad_corpus_is_named(name: str, content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        corpus_texts(PerplexityOptions(corpus=tmp_path / name))
