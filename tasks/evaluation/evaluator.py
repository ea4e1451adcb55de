"""What is measured at a checkpoint; each measure is a stage that runs when its rows are not in the warehouse yet."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from pydantic import BaseModel

from overedit.editing.storage.checksums import digest
from overedit.editing.trajectory.checkpoint import Checkpoint
from overedit.tasks.capability import scoring
from overedit.tasks.capability.gating import is_due, mean_nll
from overedit.tasks.capability.local_items import files_digest
from overedit.tasks.capability.options import CapabilityOptions
from overedit.tasks.capability.scoring import measure_capability
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.engine import lazy, server
from overedit.tasks.engine.base import EngineDiedError
from overedit.tasks.engine.lazy import LazyEngine
from overedit.tasks.evaluation import perplexity, probing
from overedit.tasks.evaluation.options import MeasureOptions
from overedit.tasks.evaluation.outcomes import NO_PRE_EDIT, PreEdit
from overedit.tasks.evaluation.perplexity import corpus_texts, measure_perplexity
from overedit.tasks.evaluation.probing import evaluate_checkpoint, unanswered
from overedit.tasks.evaluation.questions import asking_stages
from overedit.tasks.runs.run import TrajectoryPoint
from overedit.tasks.system.progress import ShowProgress
from overedit.tasks.system.stage_key import stage_key

logger = logging.getLogger(__name__)

ENGINES_A_CHECKPOINT = 3
"""So many engines may die over one checkpoint; a question that kills each of them is not worth a fourth."""


class MeasuredCheckpoint(NamedTuple):
    """A checkpoint to be measured; `checkpoint` None is the pristine model."""

    point: TrajectoryPoint
    requests: RequestStore
    """Those that the run will edit."""
    overwritten: Mapping[str, str]
    edit_counts: tuple[int, ...]
    """Where the run stops: what is asked there is asked of the pristine model."""
    checkpoint: Checkpoint | None
    model_digest: str
    is_last: bool

    @property
    def weights(self) -> str:
        """Digest of the weights measured."""
        tensors = self.checkpoint.record.tensors if self.checkpoint else {}
        return digest([self.model_digest, {name: record.sha256 for name, record in tensors.items()}])

    @property
    def is_finite(self) -> bool:
        """Whether all weights are numbers."""
        return self.checkpoint is None or self.checkpoint.record.finite

    @property
    def base(self) -> TrajectoryPoint:
        """Where the pristine model's rows lie."""
        return self.point.model_copy(update={"trajectory": "base", "method": "none", "edit_count": 0})

    @property
    def before(self) -> TrajectoryPoint:
        """Where the rows of the trajectory's previous checkpoint lie; of the first, the pristine model's."""
        count = max((count for count in self.edit_counts if count < self.point.edit_count), default=0)
        return self.point.model_copy(update={"edit_count": count}) if count else self.base


def measure(measured: MeasuredCheckpoint, options: MeasureOptions, *, engine: LazyEngine, show: ShowProgress) -> None:
    """Measure a checkpoint under everything asked for, and store the rows; what is stored already is left as it is.

    Weights that are not numbers answer nothing: their questions are stored without answers, and no engine is asked. An
    engine that dies is replaced by a new one, and what it had not finished at this checkpoint is asked again.

    Args:
        measured: The checkpoint.
        options: What is measured.
        engine: Started, and given the checkpoint's weights, only if something is missing.
        show: Shows the progress.

    Raises:
        EngineDiedError: As many engines as may have died over this checkpoint.
    """
    for engines_left in reversed(range(ENGINES_A_CHECKPOINT)):
        try:
            return _measure_missing(measured, options, engine, show)
        except EngineDiedError as error:
            engine.close()
            if not engines_left:
                raise
            point = measured.point
            logger.warning("%s; a new one goes on with %s at %d edits", error, point.trajectory, point.edit_count)


def _measure_missing(
    measured: MeasuredCheckpoint, options: MeasureOptions, engine: LazyEngine, show: ShowProgress
) -> None:
    if not measured.is_finite:
        return _store_unanswered(measured, options)
    if not _is_stored(measured, measured.weights, costs=("swap",) if measured.checkpoint else ()):
        _swap(measured, engine)
    _measure_outcomes(measured, options, engine, show)
    _measure_perplexity(measured, options, engine)
    if _capability_is_due(measured, options.capability):
        _measure_capability(measured, options, engine)


def _measure_outcomes(
    measured: MeasuredCheckpoint, options: MeasureOptions, engine: LazyEngine, show: ShowProgress
) -> None:
    point, key = measured.point, _outcomes_key(measured, options)
    if _is_stored(measured, key, "outcomes", costs=asking_stages(options.evaluation)):
        return
    _swap(measured, engine)
    pre_edit = _pre_edit(measured)
    with show(f"Probing {point.method} at {point.edit_count:,} edits", "prompts") as progress:
        result = evaluate_checkpoint(
            engine,
            measured.requests,
            point.edit_count,
            options.evaluation,
            pre_edit=pre_edit,
            edit_counts=measured.edit_counts,
            progress=progress,
        )
    point.store("outcomes", result.rows, key=key)
    for cost in result.costs:
        point.store_cost(cost.stage, cost.seconds, cost.num_items, key=key, engine=engine.kind)


def _store_unanswered(measured: MeasuredCheckpoint, options: MeasureOptions) -> None:
    """Store the questions of a checkpoint whose weights are not numbers, without answers."""
    point, key = measured.point, _outcomes_key(measured, options)
    if not point.holds("outcomes", key):
        rows = unanswered(measured.requests, point.edit_count, options.evaluation, "the weights are not finite")
        point.store("outcomes", rows, key=key)


def _outcomes_key(measured: MeasuredCheckpoint, options: MeasureOptions) -> str:
    at = measured.edit_counts if measured.checkpoint is None else ()
    requests = digest([measured.requests.digest, at])
    return _key(measured, options, probing, asked=options.evaluation, requests=requests)


def _is_stored(measured: MeasuredCheckpoint, key: str, *tables: str, costs: Sequence[str]) -> bool:
    """Whether all rows of a stage are there; a pruned checkpoint cannot be asked again for what its costs were."""
    point = measured.point
    if not all(point.holds(table, key) for table in tables):
        return False
    pruned = measured.checkpoint is not None and measured.checkpoint.record.pruned
    return pruned or all(point.holds("costs", key, part=stage) for stage in costs)


def _pre_edit(measured: MeasuredCheckpoint) -> PreEdit:
    """What the pristine model answered; nothing yet, where it is the one that is asked."""
    if measured.checkpoint is None:
        return NO_PRE_EDIT
    return PreEdit.of(measured.base.run.warehouse.rows("outcomes", measured.base.partition))


def _measure_perplexity(measured: MeasuredCheckpoint, options: MeasureOptions, engine: LazyEngine) -> None:
    if options.perplexity.corpus is None:
        return
    point = measured.point
    key = _key(measured, options, perplexity, asked=options.perplexity)
    if _is_stored(measured, key, "perplexity", costs=("perplexity",)):
        return
    _swap(measured, engine)
    begun = time.perf_counter()
    texts = corpus_texts(options.perplexity)
    point.store("perplexity", measure_perplexity(engine, texts, str(options.perplexity.corpus)), key=key)
    point.store_cost("perplexity", time.perf_counter() - begun, len(texts), key=key, engine=engine.kind)


def _measure_capability(measured: MeasuredCheckpoint, options: MeasureOptions, engine: LazyEngine) -> None:
    point = measured.point
    key = _capability_key(measured, options)
    if _is_stored(measured, key, "capability_samples", "capability", costs=("capability",)):
        return
    _swap(measured, engine)
    begun = time.perf_counter()
    result = measure_capability(engine, options.capability)
    point.store("capability_samples", result.samples, key=key)
    point.store("capability", result.scores, key=key)
    seconds = time.perf_counter() - begun
    point.store_cost("capability", seconds, len(result.samples), key=key, engine=engine.kind)


def awaits_capability(measured: MeasuredCheckpoint, options: MeasureOptions) -> bool:
    """Whether a checkpoint's general benchmarks are to be run and are not stored yet."""
    if not _capability_is_due(measured, options.capability):
        return False
    return not measured.point.holds("capability", _capability_key(measured, options))


def _capability_key(measured: MeasuredCheckpoint, options: MeasureOptions) -> str:
    files = digest(files_digest(options.capability.files)) if options.capability.files else ""
    return _key(measured, options, scoring, asked=options.capability, requests=files)


def _capability_is_due(measured: MeasuredCheckpoint, options: CapabilityOptions) -> bool:
    """Whether the general benchmarks are run here: they are dear, so a run may ask for them at some checkpoints."""
    if not options.asked or options.when == "never":
        return False
    if options.when == "every" or measured.checkpoint is None or measured.is_last:
        return True
    return options.when == "gated" and _is_at_new_level(measured, options.gate_ratio)


def _is_at_new_level(measured: MeasuredCheckpoint, ratio: float) -> bool:
    """The cheap gate, of stored rows alone: a run that continues decides as it did before (see `tasks.gate`)."""
    now, before, base = (mean_nll(_perplexity_rows(at)) for at in (measured.point, measured.before, measured.base))
    return is_due(now, before, base, ratio=ratio)


def _perplexity_rows(point: TrajectoryPoint) -> Sequence[Mapping[str, Any]]:
    return point.run.warehouse.rows("perplexity", point.partition)


def _swap(measured: MeasuredCheckpoint, engine: LazyEngine) -> None:
    """Give the engine the checkpoint's weights if it has others, and store what that took."""
    report = engine.hold(measured.checkpoint.folder if measured.checkpoint else None)
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


def _key(
    measured: MeasuredCheckpoint, options: MeasureOptions, module: ModuleType, *, asked: BaseModel, requests: str = ""
) -> str:
    return stage_key(
        module,
        lazy,
        server,
        weights=measured.weights,
        asked=asked.model_dump(mode="json"),
        engine=options.engine.model_dump(mode="json"),
        requests=requests,
    )
