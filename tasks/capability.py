"""General ability: lm-eval's benchmarks through the running engine, and their rows for the warehouse."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import lru_cache, partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.engine import Engine

HEADLINES = ("acc_norm", "acc", "exact_match", "em", "pass@1", "f1", "mcc")
"""Which of a task's metrics is its headline: the first of these that it has.

`acc_norm` before `acc`, since a task that has both is reported by the one that is fair to long answers; a rate of right
answers before an overlap (`f1`) or a correlation (`mcc`). With several filters over one metric the task's first counts.
"""

FEWSHOT_SEED = 1234
"""Chooses the worked examples (lm-eval's own default)."""


class CapabilityOptions(BaseModel):
    """The general benchmarks."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    tasks: tuple[str, ...] = ()
    """Names of lm-eval tasks, groups or tags."""
    include_path: Path | None = None
    """A folder of further task files; `pocket` is the pocket world's own."""
    trust_task_code: bool = False
    """Whether that folder may run code, as lm-eval's task files can: by `!function`, YAML tags and templates."""
    limit: int | None = Field(default=None, ge=1)
    """The first so many items of each task; None takes all."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Worked examples before each question; None leaves it to the task."""
    when: Literal["every", "gated", "last", "never"] = "every"
    """At which checkpoints: all; where the level of perplexity changes, and the last; the last; none. Always at 0."""
    gate_ratio: float = Field(default=1.05, gt=1)
    """With `gated`: the steps of perplexity over the pristine model's that make a level (see `docs/collapse.md`).

    Without `perplexity.corpus` nothing says where a model stands, and all checkpoints are evaluated.
    """

    @model_validator(mode="after")
    def _code_is_trusted_by_name(self) -> Self:
        if self.include_path not in (None, Path("pocket")) and not self.trust_task_code:
            raise ValueError(
                f"include_path: task files can run code (!function, YAML tags, templates), so {self.include_path} is "
                "read only with trust_task_code: true"
            )
        return self


class Capability(NamedTuple):
    """Rows for the warehouse, without the identity columns."""

    scores: list[dict[str, Any]]
    """Of the table `capability`."""
    samples: list[dict[str, Any]]
    """Of the table `capability_samples`."""


def measure_capability(
    engine: Engine, options: CapabilityOptions, chance: Mapping[str, float] | None = None
) -> Capability:
    """Run the benchmarks on the weights that the engine holds.

    Args:
        engine: The model asked.
        options: Which benchmarks.
        chance: The score of guessing, by task. Where it is not given, a multiple-choice task's is 1 / its choices,
            averaged over its items; of another task it is not known.

    Raises:
        ValueError: There is no such task; says which ones have like names.
    """
    from lm_eval import evaluate

    with _quiet():
        loaded = load_tasks(options)
        results = evaluate(
            lm=engine.language_model(), task_dict=loaded, limit=options.limit, bootstrap_iters=0, log_samples=True
        )
    known = (_pocket_chance() if options.include_path == Path("pocket") else {}) | dict(chance or {})
    scores: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    for task, figures in results["results"].items():
        logged = results["samples"].get(task, [])
        level = known.get(task, _guessing(logged, loaded["tasks"].get(task)))
        scores += _score_rows(task, figures, logged, level, results["higher_is_better"].get(task, {}))
        samples += [row for sample in logged for row in _sample_rows(task, sample)]
    return Capability(scores, samples)


@lru_cache(maxsize=1)
def load_tasks(options: CapabilityOptions) -> Any:
    """The task objects, as `lm_eval.evaluate` takes them; loaded once a process, which takes seconds to minutes.

    Raises:
        ValueError: There is no such task; says which ones have like names.
    """
    from lm_eval.tasks import TaskManager

    folder = _pocket_tasks() if options.include_path == Path("pocket") else options.include_path
    if folder is not None and not folder.is_dir():
        raise ValueError(f"capability.include_path: there is no folder {folder}")
    manager = TaskManager(include_path=folder, include_defaults=False)
    if not set(options.tasks) <= set(manager.all_tasks):
        manager = TaskManager(include_path=folder)
    for name in options.tasks:
        if name not in manager.all_tasks:
            near = get_close_matches(name, manager.all_tasks, n=3) or manager.all_tasks[:3]
            raise ValueError(f"capability.tasks: there is no task {name!r}; like it are {', '.join(near)}")
    loaded = manager.load(list(options.tasks))
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        if own is None or (options.num_fewshot is not None and own != 0):  # a task that says 0 means it
            task.set_config(key="num_fewshot", value=options.num_fewshot or 0)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    return loaded


def headline(metrics: Sequence[str], higher_is_better: Mapping[str, bool]) -> str | None:
    """Which of a task's metrics (`name` or `name,filter`) is its headline, by `HEADLINES`; None if none is."""
    good = [metric for metric in metrics if higher_is_better.get(metric.partition(",")[0], True)]
    return next((metric for name in HEADLINES for metric in good if metric.partition(",")[0] == name), None)


def _score_rows(
    task: str,
    figures: Mapping[str, Any],
    logged: Sequence[Mapping[str, Any]],
    chance: float | None,
    higher_is_better: Mapping[str, bool],
) -> list[dict[str, Any]]:
    values = {key: v for key, v in figures.items() if "," in key and "_stderr," not in key and _is_number(v)}
    main = headline(list(values), higher_is_better)
    return [
        {
            "task": task,
            "metric": _label(key),
            "main": key == main,
            "value": float(value),
            "stderr": _stderr(key, value, logged),
            "num_samples": int(figures["sample_len"]) if "sample_len" in figures else None,
            "chance": chance if key == main else None,
        }
        for key, value in values.items()
    ]


def _sample_rows(task: str, sample: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for metric in sample["metrics"]:
        if _is_number(sample[metric]):
            yield {
                "task": task,
                "doc_id": int(sample["doc_id"]),
                "metric": _label(f"{metric},{sample['filter']}"),
                "value": float(sample[metric]),
                "target": _answer(sample, sample["target"]),
                "response": _answer(sample, _chosen(sample)),
            }


def _chosen(sample: Mapping[str, Any]) -> Any:
    """What the model answered: its text, or the place of the likeliest choice (None where none is a number)."""
    answers = sample["filtered_resps"]
    if not isinstance(answers[0], list | tuple):
        return answers[0]
    totals = [float(total) for total, _ in answers]
    numbers = [place for place, total in enumerate(totals) if not math.isnan(total)]
    return max(numbers, key=lambda place: totals[place], default=None)


def _answer(sample: Mapping[str, Any], answer: Any) -> str | None:
    """An answer in words; that of a multiple-choice item is the place of a choice."""
    choices = [arguments[1] for arguments in sample["arguments"] if len(arguments) > 1]
    if isinstance(answer, int) and len(choices) > 1 and answer < len(choices):
        return str(choices[answer]).strip()
    return None if answer is None else str(answer)


def _guessing(logged: Sequence[Mapping[str, Any]], task: Any) -> float | None:
    if not logged or task is None or task.get_config("output_type") != "multiple_choice":
        return None
    return fmean(1 / len(sample["filtered_resps"]) for sample in logged)


def _stderr(key: str, value: float, logged: Sequence[Mapping[str, Any]]) -> float | None:
    """Standard error of a metric that is the mean of its samples' values; None for any other."""
    metric, _, name = key.partition(",")
    values = [s[metric] for s in logged if s["filter"] == name and metric in s["metrics"] and _is_number(s[metric])]
    if len(values) < 2 or not math.isclose(fmean(map(float, values)), value, rel_tol=1e-9, abs_tol=1e-12):
        return None
    return stdev(map(float, values)) / math.sqrt(len(values))


def _label(key: str) -> str:
    """`acc` for lm-eval's `acc,none`; the filter stays where there is one."""
    return key.removesuffix(",none")


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, str)


def _pocket_tasks() -> Path:
    """The pocket world's tasks, always in the same place, since `datasets` keeps a copy for each place it read from."""
    from tasks.pocket_world import write_lm_eval_tasks

    folder = Path(tempfile.gettempdir()) / f"overedit-pocket-tasks-{os.getuid()}"
    write_lm_eval_tasks(folder)
    return folder


def _pocket_chance() -> dict[str, float]:
    from tasks.pocket_world import chance_levels

    return chance_levels()


@contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval and `datasets` without progress bars and notes: the flow shows its own."""
    import datasets
    import lm_eval.api.task as building

    log = logging.getLogger("lm_eval")
    level, bar, shown = log.level, building.tqdm, not datasets.are_progress_bars_disabled()
    log.setLevel(logging.ERROR)
    building.tqdm = partial(bar, disable=True)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        log.setLevel(level)
        building.tqdm = bar
        if shown:
            datasets.enable_progress_bars()
