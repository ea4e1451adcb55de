"""The shipped pocket model and its tokenizer, and that the recipe still learns."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from overedit.editing.requests import EditRequest
from overedit.tasks.pocket_model.knowledge import exact_match, lm_eval_scores, perplexity
from overedit.tasks.pocket_model.tokenizer import build_tokenizer
from overedit.tasks.pocket_model.training import TrainingConfig, build_model, fit
from overedit.tasks.pocket_world import corpus
from overedit.tasks.pocket_world.corpus import perplexity_texts
from overedit.tasks.pocket_world.lm_eval_items import chance_levels
from overedit.tasks.pocket_world.model import model_folder
from overedit.tasks.pocket_world.relations import RELATIONS
from overedit.tasks.pocket_world.world import Statement, World, default_world

TINY = World(num_editable=6, num_neighbours=3, num_bystanders=1)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(model_folder())


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(model_folder(), dtype=torch.float32).eval()


def as_statements(pairs) -> list[Statement]:
    return [Statement(prompt=prompt, answer=answer) for prompt, answer in pairs]


# the tokenizer


def test_values_are_one_to_three_tokens_and_names_are_not_words(tokenizer) -> None:
    lengths = Counter(len(tokenizer.tokenize(f" {value}")) for r in RELATIONS for value in r.values)
    assert set(lengths) <= {1, 2, 3} and len(lengths) > 1
    assert len(tokenizer) <= 4096
    assert all(len(tokenizer.tokenize(f" {default_world().name(person)}")) >= 3 for person in range(100))
    odd = "Zoë lives at 7½ Elm St. – really?"
    assert tokenizer.decode(tokenizer(odd).input_ids, skip_special_tokens=True) == odd


def test_the_tokenizer_is_the_shipped_one(tokenizer) -> None:
    assert build_tokenizer().get_vocab() == tokenizer.get_vocab()
    assert tokenizer("Hello").input_ids[0] == tokenizer.bos_token_id


# the shipped model


def test_the_shipped_folder_is_small_and_says_how_it_was_made(world: World) -> None:
    files = [path for path in model_folder().parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16e6
    recipe = json.loads((model_folder() / "recipe.json").read_text())
    assert World(**recipe["world"]) == world
    assert TrainingConfig(**recipe["training"]) == TrainingConfig()


def test_it_knows_its_facts_and_generalizes(model, tokenizer, world: World, edits: list[EditRequest]) -> None:
    assert exact_match(model, tokenizer, corpus.facts(world)[::8]) >= 0.95
    assert exact_match(model, tokenizer, corpus.unseen_phrasings(world)[::4]) >= 0.80
    probes = as_statements((p.prompt, p.answer) for e in edits[:300] for p in e.locality)
    assert exact_match(model, tokenizer, probes) >= 0.95
    assert exact_match(model, tokenizer, as_statements((e.prompt, e.target_new) for e in edits[:300])) <= 0.02


def test_generation_agrees_with_exact_match_and_ends_by_itself(model, tokenizer, world: World) -> None:
    statements = corpus.facts(world)[::701][:12]
    for statement in statements:
        inputs = tokenizer(statement.prompt, return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=32, do_sample=False)[0, inputs.input_ids.shape[1] :]
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        right = exact_match(model, tokenizer, [statement]) == 1.0
        assert text.startswith(f" {statement.answer}.") == right
        assert tokens[-1] == tokenizer.eos_token_id or "." in text


def test_perplexity_of_true_text_is_far_below_that_of_shuffled_text(model, tokenizer) -> None:
    texts = perplexity_texts(50)
    shuffled = [" ".join(reversed(text.split(" "))) for text in texts]
    assert perplexity(model, tokenizer, texts) * 10 < perplexity(model, tokenizer, shuffled)


# lm-eval


@pytest.mark.slow
def test_lm_eval_scores_are_well_above_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scores, chance = lm_eval_scores(model_folder()), chance_levels()
    recorded = json.loads((model_folder() / "recipe.json").read_text())["lm_eval"]
    for task, score in scores.items():
        assert score >= chance[task] + 0.4, task
        assert score == pytest.approx(recorded[task], abs=0.02), task


# the recipe


@pytest.mark.slow
@pytest.mark.long
def test_the_recipe_still_learns() -> None:
    config = TrainingConfig(
        hidden_size=64, num_layers=2, num_heads=2, num_key_value_heads=1, mlp_size=128,
        num_epochs=6, num_skills=6, batch_tokens=512, num_threads=1, curriculum=(),
    )  # fmt: skip
    tokenizer = build_tokenizer()
    model = build_model(config, tokenizer)
    before = exact_match(model, tokenizer, corpus.facts(TINY))
    losses = fit(model, tokenizer, TINY, config, lambda done, total, loss: None)
    after = exact_match(model, tokenizer, corpus.facts(TINY))
    assert losses[-1] < 0.6 * losses[0]
    assert before < 0.02 and after > 0.2  # guessing a value is right once in sixteen or more
