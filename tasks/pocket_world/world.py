"""The pocket world: its people, the facts about them, and its edits.

A person is a number. The name, the facts, and the phrasings held out of training are determined by the world's
seed, so the world is the same everywhere and takes no memory at any size. There are four groups of people, in this
order:

- `editable`: known to the model; five of their six facts may be edited, one never is (it is used for locality);
- `neighbours`: known, never edited; they answer the locality probes;
- `bystanders`: known, never edited; the general-ability tasks and the perplexity text are about them;
- strangers, all others: not in the training texts; all their facts may be edited.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cached_property
from itertools import combinations

from pydantic import BaseModel, ConfigDict, Field

from overedit.editing.requests import EditRequest, Probe
from overedit.tasks.pocket_world.draws import draw, pick, scrambled
from overedit.tasks.pocket_world.relations import FIRST_NAMES, LAST_NAMES, RELATIONS, Relation

NUM_LOCALITY = 3
_PAIRS = {relation.name: tuple(combinations(relation.phrasings, 2)) for relation in RELATIONS}


class Statement(BaseModel):
    """A prompt and its answer: `prompt answer.` is a sentence of the world."""

    model_config = ConfigDict(frozen=True)

    prompt: str
    answer: str

    @property
    def text(self) -> str:
        """The whole sentence."""
        return f"{self.prompt} {self.answer}."


class World(BaseModel):
    """People and the facts about them, determined by a seed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = 1
    num_editable: int = Field(default=420, ge=1)
    """People whose facts the model knows and edits may change."""
    num_neighbours: int = Field(default=20, ge=NUM_LOCALITY)
    """Known people whose facts no edit changes: the locality probes are about them."""
    num_bystanders: int = Field(default=20, ge=1)
    """Known people for the general-ability tasks; no probe of an edit names them."""

    @property
    def num_known(self) -> int:
        """People the model is trained on."""
        return self.num_editable + self.num_neighbours + self.num_bystanders

    @property
    def num_known_edits(self) -> int:
        """Edits of facts that the model knows; `edits` gives these first."""
        return self.num_editable * (len(RELATIONS) - 1)

    @property
    def capacity(self) -> int:
        """The number of distinct edits of the world, strangers included."""
        return self.num_known_edits + self._num_stranger_edits

    @property
    def _num_stranger_edits(self) -> int:
        return (len(FIRST_NAMES) * len(LAST_NAMES) - self.num_known) * len(RELATIONS)

    @property
    def neighbours(self) -> range:
        """The people of the locality probes."""
        return range(self.num_editable, self.num_editable + self.num_neighbours)

    @property
    def bystanders(self) -> range:
        """The people of the general-ability tasks."""
        return range(self.num_known - self.num_bystanders, self.num_known)

    def name(self, person: int) -> str:
        """The full name of a person; names are unique."""
        last, first = divmod(person, len(FIRST_NAMES))
        # a Feistel network: each half is shifted by a draw from the other, so no pair occurs twice
        last = (last + draw(len(LAST_NAMES), self.seed, "last", first)) % len(LAST_NAMES)
        first = (first + draw(len(FIRST_NAMES), self.seed, "first", last)) % len(FIRST_NAMES)
        last = (last + draw(len(LAST_NAMES), self.seed, "last again", first)) % len(LAST_NAMES)
        return f"{FIRST_NAMES[first]} {LAST_NAMES[last]}"

    def value(self, person: int, relation: Relation) -> str:
        """A person's value of a relation before any edit."""
        return pick(relation.values, self.seed, "value", person, relation.name)

    def known_facts(self, *, every: int = 1) -> list[tuple[int, Relation]]:
        """Each (person, relation) that the model is trained on; of every n-th person with `every=n`."""
        return [(person, relation) for person in range(0, self.num_known, every) for relation in RELATIONS]

    def held_out(self, person: int, relation: Relation) -> tuple[str, ...]:
        """The phrasings held out of training for this fact (training shows them with other people)."""
        return pick(_PAIRS[relation.name], self.seed, "held out", person, relation.name)

    def trained(self, person: int, relation: Relation) -> tuple[str, ...]:
        """The phrasings of this fact in training."""
        held_out = self.held_out(person, relation)
        return tuple(phrasing for phrasing in relation.phrasings if phrasing not in held_out)

    def never_edited(self, person: int) -> Relation:
        """The one relation of an editable person that no edit changes."""
        return RELATIONS[person % len(RELATIONS)]

    def composed_in_training(self, person: int, relation: Relation) -> bool:
        """Whether training states the consequence of this fact; if not, the model has to compose it."""
        return draw(2, self.seed, "composed", person, relation.name) == 0

    def statement(self, person: int, relation: Relation, phrasing: str) -> Statement:
        """A true sentence about a person."""
        return Statement(prompt=phrasing.format(subject=self.name(person)), answer=self.value(person, relation))

    def composed(self, person: int, relation: Relation, phrasing: str) -> Statement:
        """A true sentence about the consequence of a person's value."""
        answer = relation.consequences[self.value(person, relation)]
        return Statement(prompt=phrasing.format(subject=self.name(person)), answer=answer)

    def edits(self, num_edits: int, *, seed: int = 0) -> Iterator[EditRequest]:
        """Stream distinct edits in constant memory; the first `num_known_edits` change facts that the model knows.

        No (subject, relation) occurs twice, so no edit overwrites another. The later ones are about strangers: their
        `target_true` is true in the world, but no model was trained on it.

        Args:
            num_edits: The number of edits, at most `capacity`.
            seed: Determines the order and the new values.

        Raises:
            ValueError: `num_edits` is negative or more than the world has.
        """
        if not 0 <= num_edits <= self.capacity:
            raise ValueError(
                f"num_edits: {num_edits} is not between 0 and the world's {self.capacity:,} distinct edits"
            )
        return self._edits(num_edits, seed)

    def _edits(self, num_edits: int, seed: int) -> Iterator[EditRequest]:
        order = random.Random(seed).sample(range(self.num_known_edits), self.num_known_edits)
        for index in order[:num_edits]:
            person, choice = divmod(index, len(RELATIONS) - 1)
            yield self._edit(person, [r for r in RELATIONS if r is not self.never_edited(person)][choice], seed)
        for index in range(num_edits - self.num_known_edits):
            far, choice = divmod(scrambled(index, self._num_stranger_edits, seed, "strangers"), len(RELATIONS))
            yield self._edit(self.num_known + far, RELATIONS[choice], seed)

    def _edit(self, person: int, relation: Relation, seed: int) -> EditRequest:
        subject, key = self.name(person), (self.seed, seed, person, relation.name)
        true = self.value(person, relation)
        others = [v for v in relation.values if relation.consequences[v] != relation.consequences[true]]
        new = pick(others, *key, "new")
        composed = pick(relation.composed_phrasings, *key, "composed").format(subject=subject)
        return EditRequest(
            case_id=f"{person}-{relation.name}",
            prompt=pick(self.trained(person, relation), *key, "prompt").format(subject=subject),
            subject=subject,
            target_new=new,
            target_true=true,
            rephrase_prompts=tuple(p.format(subject=subject) for p in self.held_out(person, relation)),
            locality=self._locality(person, relation, key),
            portability=(Probe(prompt=composed, answer=relation.consequences[new]),),
        )

    def _locality(self, person: int, relation: Relation, key: tuple[int | str, ...]) -> tuple[Probe, ...]:
        """Probes of unedited facts: of other people, same relation, and if the model knows one, of the same person."""
        start = draw(self.num_neighbours, *key, "neighbour")
        about = [self._neighbour_probes[relation.name][(start + i) % self.num_neighbours] for i in range(NUM_LOCALITY)]
        if person < self.num_editable:
            about[-1] = self._probes(person, self.never_edited(person))
        return tuple(pick(probes, *key, "locality", i) for i, probes in enumerate(about))

    @cached_property
    def _neighbour_probes(self) -> dict[str, list[tuple[Probe, ...]]]:
        return {r.name: [self._probes(person, r) for person in self.neighbours] for r in RELATIONS}

    def _probes(self, person: int, relation: Relation) -> tuple[Probe, ...]:
        statements = [self.statement(person, relation, phrasing) for phrasing in self.trained(person, relation)]
        return tuple(Probe(prompt=s.prompt, answer=s.answer) for s in statements)


def default_world() -> World:
    """The world that the shipped model was trained on."""
    return World()
