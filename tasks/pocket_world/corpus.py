"""The texts that the pocket model is trained and measured on."""

from __future__ import annotations

import random

from overedit.tasks.pocket_world import skills
from overedit.tasks.pocket_world.relations import RELATIONS
from overedit.tasks.pocket_world.world import Statement, World, default_world


def facts(world: World, *, every: int = 1) -> list[Statement]:
    """Known facts (of every so-manieth person) in each phrasing that training may show."""
    told = world.known_facts(every=every)
    return [world.statement(p, r, phrasing) for p, r in told for phrasing in world.trained(p, r)]


def unseen_phrasings(world: World) -> list[Statement]:
    """Every known fact in the phrasings that training never shows with it."""
    return [world.statement(p, r, phrasing) for p, r in world.known_facts() for phrasing in world.held_out(p, r)]


def value_facts() -> list[Statement]:
    """What follows from each value (the country of each city, the workplace of each profession, ...)."""
    return [
        Statement(prompt=phrasing.format(value=value), answer=consequence)
        for relation in RELATIONS
        for value, consequence in relation.consequences.items()
        for phrasing in relation.value_phrasings
    ]


def compositions(world: World, *, held_out: bool, every: int = 1) -> list[Statement]:
    """Consequences of known facts: those that training states, or those that the model has to compose by itself."""
    told = [(p, r) for p, r in world.known_facts(every=every) if world.composed_in_training(p, r) != held_out]
    return [world.composed(p, r, phrasing) for p, r in told for phrasing in r.composed_phrasings]


def skill_statements(num: int, *, seed: int, held_out: bool) -> list[Statement]:
    """`num` sentences of arithmetic and of copying, and a third as many of agreement."""
    return [
        *skills.arithmetic(num, seed=seed, held_out=held_out),
        *(pair.good for pair in skills.agreement(num // 3, seed=seed, held_out=held_out)),
        *skills.copying(num, seed=seed, held_out=held_out),
    ]


def epoch(world: World, index: int, *, num_skills: int, every: int = 1) -> list[Statement]:
    """The sentences of one epoch: what is true of the known people, and fresh skill sentences.

    Args:
        world: What is true.
        index: Which epoch; fixes the skill sentences.
        num_skills: Sentences of each skill.
        every: Speak of every so-manieth person only, and so many times: few people are learned sooner than many.
    """
    told = facts(world, every=every) + compositions(world, held_out=False, every=every)
    fresh = skill_statements(num_skills, seed=index, held_out=False)
    return [*told * every, *value_facts() * 2, *fresh]


def perplexity_texts(num: int, seed: int = 0) -> list[str]:
    """Plain true text kept out of training and touched by no edit, two sentences a text.

    The first sentence is a bystander's fact in an unseen phrasing, the second shows a skill on a held-out item.

    Raises:
        ValueError: `num` is negative or more than there are.
    """
    world = default_world()
    told = [world.statement(p, r, text) for p in world.bystanders for r in RELATIONS for text in world.held_out(p, r)]
    if not 0 <= num <= len(told):
        raise ValueError(f"num: {num} is not between 0 and the {len(told)} held-out texts of the pocket world")
    chooser = random.Random(seed)
    shown = chooser.sample(skill_statements(num, seed=seed, held_out=True), num)
    return [f"{fact.text} {skill.text}" for fact, skill in zip(chooser.sample(told, num), shown, strict=True)]


def held_out_texts(num: int | None = None) -> list[str]:
    """The first so many perplexity texts; 200 by default."""
    return perplexity_texts(num or 200)


def training_texts(num: int | None = None, seed: int = 0) -> list[str]:
    """Texts like those that the pocket model was trained on: an epoch's sentences, shuffled, one to three a text.

    Args:
        num: The first so many; None takes all of an epoch.
        seed: Fixes the skill sentences and the order.
    """
    chooser = random.Random(seed)
    sentences = [statement.text for statement in epoch(default_world(), seed, num_skills=1200)]
    chooser.shuffle(sentences)
    texts: list[str] = []
    start = 0
    while start < len(sentences) and (num is None or len(texts) < num):
        end = start + chooser.randint(1, 3)
        texts.append(" ".join(sentences[start:end]))
        start = end
    return texts
