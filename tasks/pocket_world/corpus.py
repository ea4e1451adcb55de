"""The training and evaluation texts of the pocket model."""

from __future__ import annotations

import random

from overedit.tasks.pocket_world import skills
from overedit.tasks.pocket_world.relations import RELATIONS
from overedit.tasks.pocket_world.world import Statement, World, default_world


def facts(world: World, *, every: int = 1) -> list[Statement]:
    """Known facts in each phrasing that training may show; of every n-th person with `every=n`."""
    known = world.known_facts(every=every)
    return [world.statement(p, r, phrasing) for p, r in known for phrasing in world.trained(p, r)]


def unseen_phrasings(world: World) -> list[Statement]:
    """Every known fact in the phrasings held out of training."""
    return [world.statement(p, r, phrasing) for p, r in world.known_facts() for phrasing in world.held_out(p, r)]


def value_facts() -> list[Statement]:
    """The consequence of each value (the country of each city, the workplace of each profession, ...)."""
    return [
        Statement(prompt=phrasing.format(value=value), answer=consequence)
        for relation in RELATIONS
        for value, consequence in relation.consequences.items()
        for phrasing in relation.value_phrasings
    ]


def compositions(world: World, *, held_out: bool, every: int = 1) -> list[Statement]:
    """Consequences of known facts: those stated in training, or those held out, which the model has to compose."""
    known = [(p, r) for p, r in world.known_facts(every=every) if world.composed_in_training(p, r) != held_out]
    return [world.composed(p, r, phrasing) for p, r in known for phrasing in r.composed_phrasings]


def skill_statements(num: int, *, seed: int, held_out: bool) -> list[Statement]:
    """`num` sentences of arithmetic and of copying, and a third as many of agreement."""
    return [
        *skills.arithmetic(num, seed=seed, held_out=held_out),
        *(pair.good for pair in skills.agreement(num // 3, seed=seed, held_out=held_out)),
        *skills.copying(num, seed=seed, held_out=held_out),
    ]


def epoch(world: World, index: int, *, num_skills: int, every: int = 1) -> list[Statement]:
    """The sentences of one epoch: the facts about the known people, and new skill sentences.

    Args:
        world: The world of the facts.
        index: The epoch, which seeds the skill sentences.
        num_skills: Sentences of each skill.
        every: With n, only every n-th person, n times each: a model learns few people sooner than many.
    """
    known = facts(world, every=every) + compositions(world, held_out=False, every=every)
    fresh = skill_statements(num_skills, seed=index, held_out=False)
    return [*known * every, *value_facts() * 2, *fresh]


def perplexity_texts(num: int, seed: int = 0) -> list[str]:
    """True texts of two sentences each, held out of training and unaffected by edits.

    The first sentence is a bystander's fact in a held-out phrasing, the second a held-out item of a skill.

    Raises:
        ValueError: `num` is negative or more than there are.
    """
    world = default_world()
    known = [world.statement(p, r, text) for p in world.bystanders for r in RELATIONS for text in world.held_out(p, r)]
    if not 0 <= num <= len(known):
        raise ValueError(f"num: {num} is not between 0 and the {len(known)} held-out texts of the pocket world")
    chooser = random.Random(seed)
    shown = chooser.sample(skill_statements(num, seed=seed, held_out=True), num)
    return [f"{fact.text} {skill.text}" for fact, skill in zip(chooser.sample(known, num), shown, strict=True)]


def held_out_texts(num: int | None = None) -> list[str]:
    """The first `num` perplexity texts; 200 by default."""
    return perplexity_texts(num or 200)


def training_texts(num: int | None = None, seed: int = 0) -> list[str]:
    """Texts like the pocket model's training texts: an epoch's sentences, shuffled, one to three per text.

    Args:
        num: The most texts; None takes all of an epoch.
        seed: Seed of the skill sentences and the order.
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
