"""The pocket world's edits, skills, texts and lm-eval tasks."""

from __future__ import annotations

import inspect
import re
from itertools import chain, islice
from pathlib import Path

import pytest

from overedit.editing.requests import EditRequest
from overedit.tasks.pocket_world import corpus, skills
from overedit.tasks.pocket_world.corpus import perplexity_texts
from overedit.tasks.pocket_world.lm_eval_items import chance_levels, task_items, write_lm_eval_tasks
from overedit.tasks.pocket_world.relations import FIRST_NAMES, LAST_NAMES, RELATIONS
from overedit.tasks.pocket_world.world import World, default_world

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


# lm-eval tasks


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
