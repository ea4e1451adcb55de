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
from overedit.tasks import engine as engine_code
from overedit.tasks.capability import scoring as capability
from overedit.tasks.capability.gating import is_due, mean_nll
from overedit.tasks.capability.local_items import files_digest
from overedit.tasks.capability.options import CapabilityOptions
from overedit.tasks.capability.scoring import measure_capability
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.engine import EngineDiedError, LazyEngine
from overedit.tasks.evaluation import perplexity
from overedit.tasks.evaluation import probing as evaluation
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


class Subject(NamedTuple):
    """A checkpoint to be measured; `checkpoint` None is the pristine model."""

    place: TrajectoryPoint
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
        return self.place.model_copy(update={"trajectory": "base", "method": "none", "edit_count": 0})

    @property
    def before(self) -> TrajectoryPoint:
        """Where the rows of the trajectory's previous checkpoint lie; of the first, the pristine model's."""
        count = max((count for count in self.edit_counts if count < self.place.edit_count), default=0)
        return self.place.model_copy(update={"edit_count": count}) if count else self.base


def measure(subject: Subject, options: MeasureOptions, *, engine: LazyEngine, show: ShowProgress) -> None:
    """Measure a checkpoint under everything asked for, and store the rows; what is stored already is left as it is.

    Weights that are not numbers answer nothing: their questions are stored without answers, and no engine is asked. An
    engine that dies is replaced by a new one, and what it had not finished at this checkpoint is asked again.

    Args:
        subject: The checkpoint.
        options: What is measured.
        engine: Started, and given the checkpoint's weights, only if something is missing.
        show: Shows the progress.

    Raises:
        EngineDiedError: As many engines as may have died over this checkpoint.
    """
    for engines_left in reversed(range(ENGINES_A_CHECKPOINT)):
        try:
            return _measure_missing(subject, options, engine, show)
        except EngineDiedError as error:
            engine.close()
            if not engines_left:
                raise
            place = subject.place
            logger.warning("%s; a new one goes on with %s at %d edits", error, place.trajectory, place.edit_count)


def _measure_missing(subject: Subject, options: MeasureOptions, engine: LazyEngine, show: ShowProgress) -> None:
    if not subject.is_finite:
        return _store_unanswered(subject, options)
    if not _is_stored(subject, subject.weights, costs=("swap",) if subject.checkpoint else ()):
        _swap(subject, engine)
    _measure_outcomes(subject, options, engine, show)
    _measure_perplexity(subject, options, engine)
    if _capability_is_due(subject, options.capability):
        _measure_capability(subject, options, engine)


def _measure_outcomes(subject: Subject, options: MeasureOptions, engine: LazyEngine, show: ShowProgress) -> None:
    place, key = subject.place, _outcomes_key(subject, options)
    if _is_stored(subject, key, "outcomes", costs=asking_stages(options.evaluation)):
        return
    _swap(subject, engine)
    pre_edit = _pre_edit(subject)
    with show(f"Probing {place.method} at {place.edit_count:,} edits", "prompts") as progress:
        result = evaluate_checkpoint(
            engine,
            subject.requests,
            place.edit_count,
            options.evaluation,
            pre_edit=pre_edit,
            edit_counts=subject.edit_counts,
            progress=progress,
        )
    place.store("outcomes", result.rows, key=key)
    for cost in result.costs:
        place.store_cost(cost.stage, cost.seconds, cost.num_items, key=key, engine=engine.kind)


def _store_unanswered(subject: Subject, options: MeasureOptions) -> None:
    """Store the questions of a checkpoint whose weights are not numbers, without answers."""
    place, key = subject.place, _outcomes_key(subject, options)
    if not place.holds("outcomes", key):
        rows = unanswered(subject.requests, place.edit_count, options.evaluation, "the weights are not finite")
        place.store("outcomes", rows, key=key)


def _outcomes_key(subject: Subject, options: MeasureOptions) -> str:
    at = subject.edit_counts if subject.checkpoint is None else ()
    requests = digest([subject.requests.digest, at])
    return _key(subject, options, evaluation, asked=options.evaluation, requests=requests)


def _is_stored(subject: Subject, key: str, *tables: str, costs: Sequence[str]) -> bool:
    """Whether all rows of a stage are there; a pruned checkpoint cannot be asked again for what its costs were."""
    place = subject.place
    if not all(place.holds(table, key) for table in tables):
        return False
    pruned = subject.checkpoint is not None and subject.checkpoint.record.pruned
    return pruned or all(place.holds("costs", key, part=stage) for stage in costs)


def _pre_edit(subject: Subject) -> PreEdit:
    """What the pristine model answered; nothing yet, where it is the one that is asked."""
    if subject.checkpoint is None:
        return NO_PRE_EDIT
    return PreEdit.of(subject.base.run.warehouse.rows("outcomes", subject.base.partition))


def _measure_perplexity(subject: Subject, options: MeasureOptions, engine: LazyEngine) -> None:
    if options.perplexity.corpus is None:
        return
    place = subject.place
    key = _key(subject, options, perplexity, asked=options.perplexity)
    if _is_stored(subject, key, "perplexity", costs=("perplexity",)):
        return
    _swap(subject, engine)
    begun = time.perf_counter()
    texts = corpus_texts(options.perplexity)
    place.store("perplexity", measure_perplexity(engine, texts, str(options.perplexity.corpus)), key=key)
    place.store_cost("perplexity", time.perf_counter() - begun, len(texts), key=key, engine=engine.kind)


def _measure_capability(subject: Subject, options: MeasureOptions, engine: LazyEngine) -> None:
    place = subject.place
    key = _capability_key(subject, options)
    if _is_stored(subject, key, "capability_samples", "capability", costs=("capability",)):
        return
    _swap(subject, engine)
    begun = time.perf_counter()
    result = measure_capability(engine, options.capability)
    place.store("capability_samples", result.samples, key=key)
    place.store("capability", result.scores, key=key)
    seconds = time.perf_counter() - begun
    place.store_cost("capability", seconds, len(result.samples), key=key, engine=engine.kind)


def awaits_capability(subject: Subject, options: MeasureOptions) -> bool:
    """Whether a checkpoint's general benchmarks are to be run and are not stored yet."""
    if not _capability_is_due(subject, options.capability):
        return False
    return not subject.place.holds("capability", _capability_key(subject, options))


def _capability_key(subject: Subject, options: MeasureOptions) -> str:
    files = digest(files_digest(options.capability.files)) if options.capability.files else ""
    return _key(subject, options, capability, asked=options.capability, requests=files)


def _capability_is_due(subject: Subject, options: CapabilityOptions) -> bool:
    """Whether the general benchmarks are run here: they are dear, so a run may ask for them at some checkpoints."""
    if not options.asked or options.when == "never":
        return False
    if options.when == "every" or subject.checkpoint is None or subject.is_last:
        return True
    return options.when == "gated" and _is_at_new_level(subject, options.gate_ratio)


def _is_at_new_level(subject: Subject, ratio: float) -> bool:
    """The cheap gate, of stored rows alone: a run that continues decides as it did before (see `tasks.gate`)."""
    now, before, base = (mean_nll(_perplexity_rows(at)) for at in (subject.place, subject.before, subject.base))
    return is_due(now, before, base, ratio=ratio)


def _perplexity_rows(place: TrajectoryPoint) -> Sequence[Mapping[str, Any]]:
    return place.run.warehouse.rows("perplexity", place.partition)


def _swap(subject: Subject, engine: LazyEngine) -> None:
    """Give the engine the checkpoint's weights if it has others, and store what that took."""
    report = engine.hold(subject.checkpoint.folder if subject.checkpoint else None)
    if report is not None:
        subject.place.store_cost(
            "swap",
            report.seconds,
            1,
            key=subject.weights,
            num_bytes=report.bytes_written,
            verified=report.verified,
            engine=engine.kind,
        )


def _key(subject: Subject, options: MeasureOptions, module: ModuleType, *, asked: BaseModel, requests: str = "") -> str:
    return stage_key(
        module,
        engine_code,
        weights=subject.weights,
        asked=asked.model_dump(mode="json"),
        engine=options.engine.model_dump(mode="json"),
        requests=requests,
    )
