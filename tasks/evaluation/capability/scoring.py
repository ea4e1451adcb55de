"""Runs lm-eval's benchmarks on the running engine and turns the results into warehouse rows."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from overedit.tasks.engine.base import Engine
from overedit.tasks.evaluation.capability.lm_eval_patches import quiet, templates_compiled_once
from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.evaluation.capability.task_loading import TaskLoader
from overedit.tasks.warehouse.vocabulary import HEADLINES, PERCENT, RIGHT_OR_WRONG

logger = logging.getLogger(__name__)

_BLOCKS = 20  # of items, each left out once, for the standard error of a corpus-level metric


class Capability(NamedTuple):
    """Rows for the warehouse, without the identity columns."""

    scores: list[dict[str, Any]]
    """Rows of the table `capability`."""
    samples: list[dict[str, Any]]
    """Rows of the table `capability_samples`."""


def measure_capability(
    engine: Engine,
    options: CapabilityOptions,
    chance: Mapping[str, float] | None = None,
    *,
    loader: TaskLoader | None = None,
) -> Capability:
    """Run the benchmarks on the weights that the engine holds.

    Args:
        engine: The running model.
        options: Which benchmarks.
        chance: The score of guessing, by task. Where it is not given, a multiple-choice task's is 1 / its choices,
            averaged over its items; that of another task is unknown.
        loader: Keeps the task objects between calls; without one they are loaded anew.

    Raises:
        ValueError: There is no such task; the message lists similar names.
    """
    from lm_eval import evaluate

    loaded = (loader or TaskLoader(options)).load()
    loaded.reseed()
    with quiet(), templates_compiled_once():
        results = evaluate(
            lm=engine.language_model(),
            task_dict=loaded.task_dict,
            limit=options.most_items,
            bootstrap_iters=0,
            log_samples=True,
        )
    known = (options.world.chance_levels() if options.world else {}) | dict(chance or {})
    scores: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    for name, figures in results["results"].items():  # tasks before the groups that they are in
        better = results["higher_is_better"].get(name) or {}
        if name in loaded.task_dict["groups"]:
            rows = _group_rows(loaded.task_dict["groups"][name], figures, scores, better)
        else:
            task, logged = loaded.task_dict["tasks"][name], results["samples"][name]
            rows = _task_rows(task, figures, logged, known.get(name, _guessing(logged, task)), better)
            samples += [row for sample in logged for row in _sample_rows(task, sample)]
        scores += [row | {"part_of": loaded.part_of.get(name)} for row in rows]
    return Capability(scores, samples)


def headline(metrics: Sequence[str], higher_is_better: Mapping[str, bool]) -> str | None:
    """Choose a task's headline metric (`name` or `name,filter`) by `HEADLINES`; None if it has none of them."""
    good = [metric for metric in metrics if higher_is_better.get(metric.partition(",")[0], True)]
    return next((metric for name in HEADLINES for metric in good if metric.partition(",")[0] == name), None)


def is_right_or_wrong(task: Any) -> bool:
    """Whether each item of an lm-eval task is right or wrong by its headline metric."""
    better = task.higher_is_better()
    return headline(list(better), better) in RIGHT_OR_WRONG


def _task_rows(
    task: Any,
    figures: Mapping[str, Any],
    logged: Sequence[Mapping[str, Any]],
    chance: float | None,
    higher_is_better: Mapping[str, bool],
) -> list[dict[str, Any]]:
    """A row for each metric of a task."""
    values = _values(figures)
    main = headline(list(values), higher_is_better)
    if main is None:
        found = ", ".join(map(_label, values)) or "none"
        logger.warning("%s has no metric that can be its headline (it has %s)", task.task_name, found)
    return [
        {
            "task": task.task_name,
            "metric": _label(key),
            "main": key == main,
            "value": value / _unit(key),
            "stderr": _stderr(task, key, value, logged),
            "num_samples": int(figures["sample_len"]),
            "chance": chance if key == main else None,
        }
        for key, value in values.items()
    ]


def _group_rows(
    group: Any, figures: Mapping[str, Any], scores: Sequence[Mapping[str, Any]], higher_is_better: Mapping[str, bool]
) -> list[dict[str, Any]]:
    """A row for each metric of a group: lm-eval's mean over its tasks and the mean's standard error."""
    from lm_eval.api.metrics import pooled_sample_stderr, unweighted_mean_stderr

    values = _values(figures)
    main = headline(list(values), higher_is_better)
    by_size = {config.metric: config.weight_by_size for config in group.aggregate_metric_list or ()}
    members = {task.task_name for task in group.get_all_tasks()}
    rows = []
    for key, value in values.items():
        parts = [row for row in scores if row["task"] in members and row["metric"] == _label(key)]
        sizes = [row["num_samples"] for row in parts]
        weights = sizes if by_size[key.partition(",")[0]] else [1] * len(sizes)
        stderrs = [row["stderr"] for row in parts]
        levels = [row["chance"] for row in parts]
        stderr = None
        if None not in stderrs:
            stderr = unweighted_mean_stderr(stderrs) if weights != sizes else pooled_sample_stderr(stderrs, sizes)
        rows.append(
            {
                "task": group.name,
                "metric": _label(key),
                "main": key == main,
                "value": value / _unit(key),
                "stderr": stderr,
                "num_samples": sum(sizes),
                "chance": fmean(levels, weights) if key == main and None not in levels else None,
            }
        )
    return rows


def _values(figures: Mapping[str, Any]) -> dict[str, float]:
    """`metric,filter` -> value, from lm-eval's results of a task or group."""
    return {key: float(v) for key, v in figures.items() if "," in key and "_stderr," not in key and _is_number(v)}


def _sample_rows(task: Any, sample: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each metric that is defined for a single item; corpus-level metrics have none."""
    for metric in sample["metrics"]:
        value = sample[metric]
        if metric in PERCENT:
            value = task.aggregation()[metric]([value])
        if _is_number(value):
            yield {
                "task": task.task_name,
                "doc_id": int(sample["doc_id"]),
                "metric": _label(f"{metric},{sample['filter']}"),
                "value": float(value) / _unit(metric),
                "target": _answer(sample, sample["target"]),
                "response": _answer(sample, _chosen(sample)),
            }


def _chosen(sample: Mapping[str, Any]) -> Any:
    """The model's answer: its text, or the index of the most likely choice (None if all log-likelihoods are NaN)."""
    answers = sample["filtered_resps"]
    if not isinstance(answers[0], list | tuple):
        return answers[0]
    totals = [float(total) for total, _ in answers]
    numbers = [index for index, total in enumerate(totals) if not math.isnan(total)]
    return max(numbers, key=lambda index: totals[index], default=None)


def _answer(sample: Mapping[str, Any], answer: Any) -> str | None:
    """An answer as text; that of a multiple-choice item is given as the index of a choice."""
    choices = [arguments[1] for arguments in sample["arguments"] if len(arguments) > 1]
    if isinstance(answer, int) and len(choices) > 1 and answer < len(choices):
        return str(choices[answer]).strip()
    return None if answer is None else str(answer)


def _guessing(logged: Sequence[Mapping[str, Any]], task: Any) -> float | None:
    if not logged or task is None or task.get_config("output_type") != "multiple_choice":
        return None
    return fmean(1 / len(sample["filtered_resps"]) for sample in logged)


def _stderr(task: Any, key: str, value: float, logged: Sequence[Mapping[str, Any]]) -> float | None:
    """Standard error of a metric: from the samples if it is their mean, by the jackknife if it is in percent."""
    metric, _, name = key.partition(",")
    found = [sample[metric] for sample in logged if sample["filter"] == name and metric in sample["metrics"]]
    if len(found) < 2:
        return None
    if metric in PERCENT:
        return _jackknife(task.aggregation()[metric], found) / _unit(metric)
    values = [float(one) for one in found if _is_number(one)]
    if len(values) < 2 or not math.isclose(fmean(values), value, rel_tol=1e-9, abs_tol=1e-12):
        return None
    return stdev(values) / math.sqrt(len(values))


def _jackknife(aggregate: Callable[[list[Any]], float], items: list[Any]) -> float:
    """Standard error by the delete-a-block jackknife (Efron and Tibshirani 1993, equation 11.5, over blocks)."""
    blocks = min(_BLOCKS, len(items))
    left = [aggregate([item for index, item in enumerate(items) if index % blocks != k]) for k in range(blocks)]
    return math.sqrt((blocks - 1) / blocks * sum((one - fmean(left)) ** 2 for one in left))


def _unit(key: str) -> int:
    return 100 if key.partition(",")[0] in PERCENT else 1


def _label(key: str) -> str:
    """`acc` for lm-eval's `acc,none`; any other filter is kept."""
    return key.removesuffix(",none")


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, str)
