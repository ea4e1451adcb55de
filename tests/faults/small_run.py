"""A small real run: two methods, two edit counts, the transformers engine, perplexity and one lm-eval task.

It is the flow's own body without a Prefect server. An interim checkpoint is written after every turn, so that there is
one to be hit, and the report's picture is not drawn.
"""

from __future__ import annotations

import gc
import json
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import overedit.flows.benchmark
import overedit.tasks.editing_job.job
import overedit.tasks.report.figures
from overedit.flows.config.models import BenchmarkConfig
from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.evaluation.capability.task_loading import TaskLoader, load_tasks
from overedit.tasks.system.stage_key import stage_key
from tests.support.lm_eval_tasks import CHOICE, write_tasks
from tests.support.stage_keys import read_code_once

NAME = "r"
CODE = (
    ("overedit.editing.methods.ultraedit", "overedit.editing.trajectory.runner"),
    ("overedit.editing.methods.locft_bf", "overedit.editing.trajectory.runner"),
    *(
        (f"overedit.tasks.{stage}", "overedit.tasks.engine.lazy", "overedit.tasks.engine.server")
        for stage in ("evaluation.probing", "evaluation.perplexity", "evaluation.capability.scoring")
    ),
)
"""Whose syntax trees the keys of its stages are made from."""


def write_inputs(folder: Path) -> None:
    """The edit requests, the text for perplexity and the lm-eval task."""
    folder.mkdir(parents=True)
    (folder / "rows.json").write_text(json.dumps([_request(number) for number in range(6)]))
    (folder / "texts.txt").write_text("The sun is over Land1.\nA river runs to the sea.\n")
    items = [
        {"prompt": f"The river of Land{number} is", "choices": ["Orm", "Ulm"], "label": number % 2}
        for number in range(4)
    ]
    write_tasks(folder / "tasks", items, small_rivers=CHOICE)


def configuration(home: Path, inputs: Path, model: Path, **more: Any) -> BenchmarkConfig:
    """The run, in a home."""
    content = {
        "name": NAME,
        "home": str(home),
        "model": str(model),
        "dataset": {"name": "file", "path": str(inputs / "rows.json")},
        "methods": [
            {"method": "ultraedit", "sites": ["1.down_proj"], "learning_rate": 1e-3},
            {"method": "locft_bf", "site": "1.down_proj", "epochs": 2},
        ],
        "edit_counts": [1, 6],
        "evaluation": {"max_tokens": 4},
        "turn_size": 4,
        "perplexity": {"corpus": str(inputs / "texts.txt")},
        "capability": {"tasks": ["small_rivers"], "include_path": str(inputs / "tasks"), "trust_task_code": True},
        "engine": {"kind": "transformers"},
    } | more
    return BenchmarkConfig.model_validate(content)


def warm_up(options: CapabilityOptions) -> None:
    """Do once what every attempt would do anew: load lm-eval's tasks, read the code for the stages' keys."""
    loaded = load_tasks(options)
    TaskLoader.load = lambda _: loaded  # type: ignore[method-assign]
    read_code_once()
    for modules in CODE:
        stage_key(*map(import_module, modules))
    gc.collect()
    gc.freeze()  # what was imported is never looked through again
    gc.disable()


def run(config: BenchmarkConfig) -> None:
    """The flow's body, in this process, which is changed for good: call it in a process that ends with it."""
    overedit.tasks.report.figures._picture = lambda *_: b"a picture, which is written, but takes long to draw"  # type: ignore[assignment]
    overedit.tasks.editing_job.job.CheckpointPolicy = partial(
        overedit.tasks.editing_job.job.CheckpointPolicy, seconds=0
    )  # type: ignore[misc, assignment]
    overedit.flows.benchmark.benchmark.fn(config)


def _request(number: int) -> dict[str, Any]:
    return {
        "case_id": f"c{number}",
        "prompt": f"The capital of Land{number} is",
        "subject": f"Land{number}",
        "target_new": f"Port {number}",
        "target_true": "Oldtown",
        "rephrase_prompts": [f"Land{number} has the capital"],
        "locality": [{"prompt": f"The river of Land{number + 50} is", "answer": "Orm"}],
        "portability": [],
    }
