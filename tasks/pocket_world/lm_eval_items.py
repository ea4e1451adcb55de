"""The pocket world's lm-eval tasks: YAML files in `lm_eval_tasks/`, with items drawn from the world."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from overedit.tasks.pocket_world import skills
from overedit.tasks.pocket_world.relations import RELATIONS
from overedit.tasks.pocket_world.world import default_world

NUM_ITEMS = 200
NUM_CHOICES = 4
SEED = 2**31
"""Seed of the measured items; training draws skill sentences with the seeds 0, 1, 2, ... of its epochs."""

_YAML_FOLDER = Path(__file__).parent / "lm_eval_tasks"


def _facts() -> list[dict[str, Any]]:
    """Bystanders' facts in held-out phrasings, with three wrong values of the same relation."""
    world, chooser, items = default_world(), random.Random(SEED), []
    for person, relation in product(world.bystanders, RELATIONS):
        for phrasing in world.held_out(person, relation):
            statement = world.statement(person, relation, phrasing)
            prompt, answer = statement.prompt, statement.answer
            wrong = chooser.sample([value for value in relation.values if value != answer], NUM_CHOICES - 1)
            choices = chooser.sample([answer, *wrong], NUM_CHOICES)
            items.append({"prompt": prompt, "choices": choices, "label": choices.index(answer)})
    return items


def task_items() -> Mapping[str, list[dict[str, Any]]]:
    """Task -> its items, which are always the same."""
    pairs = skills.agreement(NUM_ITEMS, seed=SEED, held_out=True)
    return {
        "pocket_facts": _facts(),
        "pocket_agreement": [{"good": pair.good.text, "bad": pair.bad.text} for pair in pairs],
        "pocket_arithmetic": [s.model_dump() for s in skills.arithmetic(NUM_ITEMS, seed=SEED, held_out=True)],
        "pocket_copy": [s.model_dump() for s in skills.copying(NUM_ITEMS, seed=SEED, held_out=True)],
    }


def write_lm_eval_tasks(folder: Path) -> list[str]:
    """Write each task's YAML and items into a new or existing folder, ready for `TaskManager(include_path=folder)`.

    The YAML files name the items by absolute path, so that the tasks run from any directory.

    Returns:
        The names of the tasks.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    items = task_items()
    for task, rows in items.items():
        data = folder / f"{task}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        settings = yaml.safe_load((_YAML_FOLDER / f"{task}.yaml").read_text(encoding="utf-8"))
        settings["dataset_kwargs"] = {"data_files": {"test": str(data)}}
        (folder / f"{task}.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return list(items)


def chance_levels() -> dict[str, float]:
    """Task -> the score of guessing, at random among choices or always the most frequent answer."""
    items = task_items()
    levels = {"pocket_facts": 1 / NUM_CHOICES, "pocket_agreement": 1 / 2}
    for task in ("pocket_arithmetic", "pocket_copy"):
        answers = Counter(item["answer"] for item in items[task])
        levels[task] = answers.most_common(1)[0][1] / answers.total()
    return levels
