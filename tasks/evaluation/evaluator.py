"""Measures checkpoints: probes, perplexity and general benchmarks, each run only if its rows are not stored yet."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from overedit.editing.storage.checksums import digest
from overedit.tasks.engine import lazy, server
from overedit.tasks.engine.base import Engine, EngineDiedError
from overedit.tasks.engine.lazy import LazyEngine
from overedit.tasks.evaluation import perplexity, probing
from overedit.tasks.evaluation.capability import scoring
from overedit.tasks.evaluation.capability.gating import is_due, mean_nll
from overedit.tasks.evaluation.capability.local_items import files_digest
from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.evaluation.capability.scoring import measure_capability
from overedit.tasks.evaluation.capability.task_loading import TaskLoader
from overedit.tasks.evaluation.measured import MeasuredCheckpoint, Questions
from overedit.tasks.evaluation.options import MeasureOptions, PerplexityOptions
from overedit.tasks.evaluation.outcomes import NO_PRE_EDIT, PreEdit
from overedit.tasks.evaluation.perplexity import corpus_texts, measure_perplexity
from overedit.tasks.evaluation.probing import evaluate_checkpoint, unanswered
from overedit.tasks.evaluation.questions import asking_stages
from overedit.tasks.runs.run import TrajectoryPoint
from overedit.tasks.system.progress import ShowProgress
from overedit.tasks.system.stage_key import SourceIndex

logger = logging.getLogger(__name__)

ENGINES_A_CHECKPOINT = 3
"""The most engines that may die while one checkpoint is measured: the same prompt would kill another one too."""


def measure(
    measured: MeasuredCheckpoint,
    options: MeasureOptions,
    *,
    engine: LazyEngine,
    show: ShowProgress,
    loader: TaskLoader | None = None,
) -> None:
    """Measure a checkpoint and store the rows; measures that are stored already are left as they are.

    Checkpoints whose weights are not finite are not run: their questions are stored without answers. An engine that
    dies is replaced by a new one, and its unfinished stage of this checkpoint is repeated.

    Args:
        measured: The checkpoint.
        options: What is measured.
        engine: Started and swapped to the checkpoint's weights only if a measure is missing.
        show: Shows the progress.
        loader: Keeps the general benchmarks' task objects between checkpoints; without one they are loaded anew.

    Raises:
        EngineDiedError: `ENGINES_A_CHECKPOINT` engines have died while this checkpoint was measured.
    """
    loader = loader or TaskLoader(options.capability)
    for engines_left in reversed(range(ENGINES_A_CHECKPOINT)):
        try:
            return _measure_missing(measured, options, engine, show, loader)
        except EngineDiedError as error:
            engine.close()
            if not engines_left:
                raise
            logger.warning("%s; a new one continues with %s", error, measured.point.in_words)


def _measure_missing(
    measured: MeasuredCheckpoint, options: MeasureOptions, engine: LazyEngine, show: ShowProgress, loader: TaskLoader
) -> None:
    if not measured.is_finite:
        return _store_unanswered(measured, options)
    swap_is_stored = _is_stored(measured, measured.weights, costs=("swap",) if measured.checkpoint else ())
    running = None if swap_is_stored else _with_weights(measured, engine)
    for stage in _missing_stages(measured, options, show, loader):
        if running is None:
            running = _with_weights(measured, engine)
        stage(running)


def _missing_stages(
    measured: MeasuredCheckpoint, options: MeasureOptions, show: ShowProgress, loader: TaskLoader
) -> Iterator[Callable[[Engine], None]]:
    """The stages whose rows are not stored, in order; each runs before the next is looked for.

    Whether the general benchmarks are due depends on the perplexity of this checkpoint.
    """
    for questions in measured.questions:
        key = _outcomes_key(measured, options, questions)
        if not _is_stored(measured, key, "outcomes", costs=asking_stages(options.evaluation), part=questions.part):
            yield partial(_measure_outcomes, measured, options, questions, key, show)
    key = _key(measured, options, perplexity, asked=options.perplexity)
    if options.perplexity.corpus is not None and not _is_stored(measured, key, "perplexity", costs=("perplexity",)):
        yield partial(_measure_perplexity, measured, options.perplexity, key)
    if _capability_is_due(measured, options.capability):
        key = _capability_key(measured, options)
        if not _is_stored(measured, key, "capability_samples", "capability", costs=("capability",)):
            yield partial(_measure_capability, measured, options.capability, loader, key)


def _measure_outcomes(
    measured: MeasuredCheckpoint,
    options: MeasureOptions,
    questions: Questions,
    key: str,
    show: ShowProgress,
    engine: Engine,
) -> None:
    point, part, pre_edit = measured.point, questions.part, _pre_edit(measured)
    with show(f"Probing {point.in_words}", "prompts") as progress:
        result = evaluate_checkpoint(
            engine,
            measured.requests,
            point.edit_count,
            options.evaluation,
            pre_edit=pre_edit,
            edit_counts=questions.edit_counts,
            asked_before=questions.asked_before,
            progress=progress,
        )
    point.store("outcomes", result.rows, key=key, part=part)
    for cost in result.costs:
        cost_part = _cost_part(cost.stage, part)
        point.store_cost(cost.stage, cost.seconds, cost.num_items, key=key, part=cost_part, engine=engine.kind)


def _store_unanswered(measured: MeasuredCheckpoint, options: MeasureOptions) -> None:
    """Store the questions of a checkpoint whose weights are not finite, without answers."""
    (questions,) = measured.questions
    point, key = measured.point, _outcomes_key(measured, options, questions)
    if not point.reuse("outcomes", key):
        rows = unanswered(measured.requests, point.edit_count, options.evaluation, "the weights are not finite")
        point.store("outcomes", rows, key=key)


def _outcomes_key(measured: MeasuredCheckpoint, options: MeasureOptions, questions: Questions) -> str:
    requests = digest([measured.requests.digest, questions])
    return _key(measured, options, probing, asked=options.evaluation, requests=requests)


def _is_stored(measured: MeasuredCheckpoint, key: str, *tables: str, costs: Sequence[str], part: str = "") -> bool:
    """Whether all rows of a stage are stored; the costs of a pruned checkpoint may be missing."""
    point = measured.point
    if not all(point.reuse(table, key, part=part) for table in tables):
        return False
    pruned = measured.checkpoint is not None and measured.checkpoint.record.pruned
    taken_over = [point.reuse("costs", key, part=_cost_part(stage, part)) for stage in costs]  # each, if one is missing
    return all(taken_over) or pruned


def _cost_part(stage: str, part: str) -> str:
    return f"{stage}, {part}" if part else stage


def _pre_edit(measured: MeasuredCheckpoint) -> PreEdit:
    """The pristine model's answers in all rounds; none while the pristine model itself is measured."""
    if measured.checkpoint is None:
        return NO_PRE_EDIT
    base, pristine = measured.base, replace(measured, point=measured.base, folder=None)
    parts = [questions.part for questions in pristine.questions]
    rows = (base.run.warehouse.rows("outcomes", base.partition, part=part) for part in parts)
    return PreEdit.of([row for some in rows for row in some])


def _measure_perplexity(measured: MeasuredCheckpoint, options: PerplexityOptions, key: str, engine: Engine) -> None:
    point = measured.point
    begun = time.perf_counter()
    texts = corpus_texts(options)
    point.store("perplexity", measure_perplexity(engine, texts, str(options.corpus)), key=key)
    point.store_cost("perplexity", time.perf_counter() - begun, len(texts), key=key, engine=engine.kind)


def _measure_capability(
    measured: MeasuredCheckpoint, options: CapabilityOptions, loader: TaskLoader, key: str, engine: Engine
) -> None:
    point = measured.point
    begun = time.perf_counter()
    result = measure_capability(engine, options, loader=loader)
    point.store("capability_samples", result.samples, key=key)
    point.store("capability", result.scores, key=key)
    seconds = time.perf_counter() - begun
    point.store_cost("capability", seconds, len(result.samples), key=key, engine=engine.kind)


def awaits_capability(measured: MeasuredCheckpoint, options: MeasureOptions) -> bool:
    """Whether a checkpoint's general benchmarks are due and not stored yet."""
    if not _capability_is_due(measured, options.capability):
        return False
    return not measured.point.holds("capability", _capability_key(measured, options))


def _capability_key(measured: MeasuredCheckpoint, options: MeasureOptions) -> str:
    files = digest(files_digest(options.capability.files)) if options.capability.files else ""
    return _key(measured, options, scoring, asked=options.capability, requests=files)


def _capability_is_due(measured: MeasuredCheckpoint, options: CapabilityOptions) -> bool:
    """Whether the general benchmarks run at this checkpoint; they are slow, so a run may limit them to some."""
    if not options.asked or options.when == "never":
        return False
    if options.when == "every" or measured.folder is None or measured.is_last:
        return True
    return options.when == "gated" and _is_at_new_level(measured, options.gate_ratio)


def _is_at_new_level(measured: MeasuredCheckpoint, ratio: float) -> bool:
    """Gate capability by stored perplexities only, so that a continued run decides as before (see `gating`)."""
    now, before, base = (mean_nll(_perplexity_rows(at)) for at in (measured.point, measured.before, measured.base))
    return is_due(now, before, base, ratio=ratio)


def _perplexity_rows(point: TrajectoryPoint) -> Sequence[Mapping[str, Any]]:
    return point.run.warehouse.rows("perplexity", point.partition)


def _with_weights(measured: MeasuredCheckpoint, engine: LazyEngine) -> Engine:
    """The running engine with the checkpoint's weights; the cost of the swap, if one was needed, is stored."""
    report = engine.ensure_weights(measured.folder)
    if report is not None:
        measured.point.store_cost(
            "swap",
            report.seconds,
            1,
            key=measured.weights,
            num_bytes=report.bytes_written,
            verified=report.verified,
            engine=engine.kind,
        )
    return engine.started()  # not only at the first call: a stage's cost must not include the start


def _key(
    measured: MeasuredCheckpoint, options: MeasureOptions, module: ModuleType, *, asked: BaseModel, requests: str = ""
) -> str:
    sources = measured.sources or SourceIndex()
    return sources.key(
        module,
        lazy,
        server,
        weights=measured.weights,
        asked=asked.model_dump(mode="json"),
        engine=options.engine.model_dump(mode="json"),
        requests=requests,
    )
