from __future__ import annotations

import inspect
import json
import re
from collections import Counter
from itertools import chain, islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from overedit.editing.requests import EditRequest
from overedit.tasks.pocket_model.knowledge import exact_match, perplexity
from overedit.tasks.pocket_model.lm_eval_scores import lm_eval_scores
from overedit.tasks.pocket_model.tokenizer import build_tokenizer
from overedit.tasks.pocket_model.training import TrainingConfig, build_model, fit
from overedit.tasks.pocket_world import corpus, skills
from overedit.tasks.pocket_world.corpus import perplexity_texts
from overedit.tasks.pocket_world.lm_eval_items import chance_levels, task_items, write_lm_eval_tasks
from overedit.tasks.pocket_world.model import model_folder
from overedit.tasks.pocket_world.relations import FIRST_NAMES, LAST_NAMES, RELATIONS
from overedit.tasks.pocket_world.world import Statement, World, default_world

TINY = World(num_editable=6, num_neighbours=3, num_bystanders=1)


@pytest.fixture(scope="module")
def world() -> World:
    return default_world()


@pytest.fixture(scope="module")
def edits(world: World) -> list[EditRequest]:
    return list(world.edits(world.num_known_edits))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(model_folder())


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(model_folder(), dtype=torch.float32).eval()


def as_statements(pairs) -> list[Statement]:
    return [Statement(prompt=prompt, answer=answer) for prompt, answer in pairs]


# the world


def test_no_two_names_are_alike() -> None:
    assert len(set(FIRST_NAMES)) == len(FIRST_NAMES) and len(set(LAST_NAMES)) == len(LAST_NAMES)
    assert len({default_world().name(person) for person in range(50_000)}) == 50_000


def test_the_same_seed_gives_the_same_world_and_another_seed_another(world: World) -> None:
    assert list(World().edits(50, seed=3)) == list(world.edits(50, seed=3))
    assert list(world.edits(50, seed=4)) != list(world.edits(50, seed=3))
    assert [World(seed=9).name(p) for p in range(20)] != [world.name(p) for p in range(20)]
    # pinned: the shipped model knows this world and no other
    assert world.name(0) == "Lorla Foxmere"


def test_fewer_edits_are_the_beginning_of_more(world: World, edits: list[EditRequest]) -> None:
    assert list(world.edits(100)) == edits[:100]


def test_at_least_two_thousand_distinct_edits_each_with_every_probe(world: World, edits: list[EditRequest]) -> None:
    assert len(edits) == world.num_known_edits >= 2000
    assert len({edit.case_id for edit in edits}) == len(edits)
    assert len({(edit.subject, edit.case_id.split("-")[1]) for edit in edits}) == len(edits)
    for edit in edits:
        assert edit.target_new != edit.target_true
        assert edit.subject is not None and edit.subject in edit.prompt
        assert len(edit.rephrase_prompts) == 2 and edit.prompt not in edit.rephrase_prompts
        assert all(edit.subject in prompt for prompt in edit.rephrase_prompts)
        assert len(edit.locality) == 3 and len(edit.portability) == 1


def test_no_edit_touches_a_locality_probe(world: World, edits: list[EditRequest]) -> None:
    edited = {(e.subject, e.case_id.split("-")[1]) for e in edits}
    owner = {
        (world.name(p), r.name): {(s.prompt, s.answer) for s in (world.statement(p, r, t) for t in r.phrasings)}
        for p, r in world.known_facts()
    }
    untouched = set(chain.from_iterable(facts for key, facts in owner.items() if key not in edited))
    assert all((probe.prompt, probe.answer) in untouched for edit in edits for probe in edit.locality)


def test_portability_follows_from_the_new_value_and_not_from_the_old_one(edits: list[EditRequest]) -> None:
    relations = {relation.name: relation for relation in RELATIONS}
    for edit in edits:
        consequences = relations[edit.case_id.split("-")[1]].consequences
        assert edit.portability[0].answer == consequences[edit.target_new] != consequences[edit.target_true or ""]


def test_the_bystanders_are_in_no_probe_of_an_edit(world: World, edits: list[EditRequest]) -> None:
    names = tuple(world.name(person) for person in world.bystanders)
    for edit in edits:
        prompts = (edit.prompt, *edit.rephrase_prompts, *(p.prompt for p in edit.locality + edit.portability))
        assert not any(name in prompt for name in names for prompt in prompts)


def test_unseen_phrasings_are_never_trained(world: World) -> None:
    trained = {s.prompt for s in corpus.epoch(world, 0, num_skills=10)}
    assert not trained & {s.prompt for s in corpus.unseen_phrasings(world)}
    assert not trained & {s.prompt for s in corpus.compositions(world, held_out=True)}


def test_a_million_edits_are_a_stream_of_distinct_ones(world: World) -> None:
    stream = world.edits(1_000_000)
    assert inspect.isgenerator(stream)
    facts = {(edit.subject, edit.case_id) for edit in islice(stream, 100_000)}
    assert len({subject for subject, _ in facts}) > 50_000 and len(facts) == 100_000
    late = next(islice(World().edits(1_000_000), 5000, None))
    assert late.target_new != late.target_true and len(late.locality) == 3


def test_more_edits_than_the_world_has_are_refused(world: World) -> None:
    with pytest.raises(ValueError, match="num_edits: 99999999"):
        world.edits(99_999_999)


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


# skills


def test_skills_hold_their_measured_items_out_of_training() -> None:
    def keys(held_out: bool) -> set[str]:
        pairs = skills.agreement(300, seed=0, held_out=held_out)
        rows = {s.answer for s in skills.copying(300, seed=0, held_out=held_out)}
        return (
            rows
            | {pair.good.text for pair in pairs}
            | {s.prompt for s in skills.arithmetic(300, seed=0, held_out=held_out)}
        )

    assert not keys(True) & keys(False)


def test_arithmetic_is_right_and_pairs_differ_in_the_verb_only() -> None:
    for item in skills.arithmetic(200, seed=1):
        match = re.search(r"(\d+) (plus|minus) (\d+)", item.prompt)
        assert match is not None
        one, sign, other = match.groups()
        assert int(item.answer) == (int(one) + int(other) if sign == "plus" else int(one) - int(other))
    for pair in skills.agreement(100, seed=1):
        plural = pair.good.prompt.split(" ")[1].endswith("s")
        assert pair.good.answer.endswith("s") != plural and pair.bad.answer.endswith("s") == plural


def test_perplexity_texts_are_seeded_and_bounded() -> None:
    assert perplexity_texts(20, seed=1) == perplexity_texts(20, seed=1) != perplexity_texts(20, seed=2)
    assert len(set(perplexity_texts(200))) == 200 and perplexity_texts(0) == []
    with pytest.raises(ValueError, match="num: 5000"):
        perplexity_texts(5000)


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


def test_tasks_are_yaml_files_that_run_from_anywhere(tmp_path: Path) -> None:
    names = write_lm_eval_tasks(tmp_path / "made")
    assert set(names) == set(chance_levels()) == set(task_items())
    for name in names:
        assert f"test: {tmp_path / 'made' / name}.jsonl" in (tmp_path / "made" / f"{name}.yaml").read_text()
        rows = (tmp_path / "made" / f"{name}.jsonl").read_text().splitlines()
        assert 100 <= len(rows) == len(set(rows)) <= 250
    write_lm_eval_tasks(tmp_path / "again")
    for name in names:
        assert len({(tmp_path / folder / f"{name}.jsonl").read_bytes() for folder in ("made", "again")}) == 1


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
