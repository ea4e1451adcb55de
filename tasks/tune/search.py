"""The search of one method: Optuna proposes settings, each is tried on validation edits, and the best goes to the test.

Optuna only proposes (ask) and is told what came out (tell); the trials are rows of the table `trials`. What trial n
tries follows from the trials before it and a seed made of n, so a search that was stopped asks for the same settings
again, takes over the rows that are stored, and ends equal to one that ran through.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from statistics import fmean
from typing import Any, NamedTuple

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import BaseModel, ConfigDict

from overedit.editing.methods.base import MethodConfig
from overedit.editing.methods.registry import METHODS
from overedit.editing.storage.checksums import digest
from overedit.editing.trajectory.interruption import StoppedError
from overedit.editing.trajectory.settings import turn_seed
from overedit.tasks.data.corpus import texts_digest
from overedit.tasks.editing_job.job import inputs_key
from overedit.tasks.evaluation.capability.local_items import files_digest
from overedit.tasks.runs.run import Run
from overedit.tasks.system.progress import ShowProgress, unseen
from overedit.tasks.system.stage_key import stage_key
from overedit.tasks.tune import bench as measuring
from overedit.tasks.tune.bench import Bench, EditFailedError, Split
from overedit.tasks.tune.options import TuneJob
from overedit.tasks.tune.settings import chosen_settings, distributions, with_chosen
from overedit.tasks.warehouse.tables import Row

STARTUP = 5
"""Trials with random settings before the sampler learns from the earlier ones; none of them is pruned."""


class Place(BaseModel):
    """Where the rows of a method's search are stored."""

    model_config = ConfigDict(frozen=True)

    run: Run
    trajectory: str
    label: str
    method: str

    @property
    def partition(self) -> dict[str, Any]:
        """The columns that all rows share."""
        return {"run": self.run.name, "trajectory": self.trajectory}


class Tuned(NamedTuple):
    """The result of a method's search."""

    study: str
    """Digest of everything that determines the trials."""
    trial: int | None
    """The number of the best trial; None where the given settings are at least as good on the validation edits."""
    config: MethodConfig
    """The method with the settings that are kept: those of that trial, or the given ones."""


class NoTrialError(RuntimeError):
    """No trial of a method was completed."""


class StepMedianPruner(BasePruner):
    """Prunes a trial whose value at a step is below the median of the earlier trials' values at the same step.

    Optuna's own MedianPruner takes a trial's best value so far. Reliability falls with the number of edits, so that
    would be the first value of every trial.
    """

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop the trial after its last report."""
        step = trial.last_step
        if step is None or trial.number < STARTUP:
            return False
        before = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        values = sorted(each.intermediate_values[step] for each in before if step in each.intermediate_values)
        return len(values) >= STARTUP and trial.intermediate_values[step] < values[len(values) // 2]


def study_key(job: TuneJob, bench: Bench) -> str:
    """Digest of the model, method, ranges, edits, texts and code that determine the trials; the budget is no part."""
    return stage_key(
        sys.modules[METHODS[job.method.method].config.__module__],
        measuring,
        sys.modules[__name__],
        weights=job.model.digest,
        job=job.model_dump(mode="json", exclude={"budget": True, "model": {"name"}}),
        edits={split: [each.model_dump(mode="json") for each in edits] for split, edits in bench.edits.items()},
        texts=texts_digest(bench.texts),
        items=files_digest(job.judging.capability.files),
        **inputs_key(job.method, job.model.digest),
    )


def run_search(
    job: TuneJob,
    bench: Bench,
    place: Place,
    *,
    show: ShowProgress = unseen,
    stop_asked: Callable[[], bool] = lambda: False,
) -> Tuned:
    """Search for settings within the budget, and measure the best and the given ones on test edits.

    Args:
        job: Method, ranges and budget.
        bench: Measures the trials.
        place: Where rows are stored; those that are stored already are taken over.
        show: Shows the progress.
        stop_asked: Checked after each trial.

    Raises:
        NoTrialError: No trial was completed.
        StoppedError: A stop was requested; the same call continues.
    """
    search = _Search(job, bench, place, study_key(job, bench))
    with show(f"Searching settings of {place.label}", "trials") as progress:
        for number in range(job.budget.trials):
            if job.budget.seconds is not None and search.seconds >= job.budget.seconds:
                break
            search.next(number)
            progress(number + 1, job.budget.trials)
            if stop_asked():
                raise StoppedError(f"stopped after {number + 1} trials of {place.label} were stored, as asked")
    trial, value, settings = search.best()
    config = with_chosen(job.method, settings)
    given = _value(search.measured(job.method, {}, "validation"))
    search.measured(config, settings, "test", number=trial)
    search.measured(job.method, {}, "test")
    if given is not None and given >= value:
        return Tuned(search.key, None, job.method)
    return Tuned(search.key, trial, config)


class _Search:
    """The study of one method, and its stored rows."""

    def __init__(self, job: TuneJob, bench: Bench, place: Place, key: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._job, self._bench, self._place, self.key = job, bench, place, key
        self._study = optuna.create_study(direction="maximize", pruner=StepMedianPruner())
        self._distributions = distributions(job.ranges)
        self._settings: list[dict[str, Any]] = []
        self._values: list[float | None] = []  # of completed trials
        self.seconds = 0.0
        """Time that the trials have taken, in this process or an earlier one."""

    def next(self, number: int) -> None:
        """Make one trial, or take over its rows."""
        seed = turn_seed(self._job.seed, number, number + 1) % 2**32
        self._study.sampler = TPESampler(seed=seed, n_startup_trials=STARTUP)
        trial = self._study.ask(self._distributions)
        settings = chosen_settings(trial.params, self._job.ranges)
        self._settings.append(settings)
        try:
            rows = self.measured(
                with_chosen(self._job.method, settings), settings, "validation", number=number, trial=trial
            )
        except ValueError as error:  # settings that do not go together
            failed = [{"order_seed": self._job.judging.seeds[0], "edit_count": self._job.judging.edit_counts[-1]}]
            rows = self._store(failed, settings, "validation", number, state="failed", error=str(error))
        self.seconds += sum(row["seconds"] or 0.0 for row in rows)
        value = _value(rows)
        self._values.append(value)
        if rows[0]["state"] == "pruned":
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, value or 0.0)  # a trial that failed is the worst one

    def best(self) -> tuple[int, float, dict[str, Any]]:
        """The completed trial with the highest objective, of equal ones the first: number, objective and settings.

        Raises:
            NoTrialError: No trial was completed.
        """
        completed = [number for number, value in enumerate(self._values) if value is not None]
        if not completed:
            raise NoTrialError(f"methods: no trial of {self._place.label} was completed; widen or move its ranges")
        number = max(completed, key=lambda each: (self._values[each] or 0.0, -each))
        return number, self._values[number] or 0.0, self._settings[number]

    def measured(
        self,
        config: MethodConfig,
        settings: dict[str, Any],
        split: Split,
        *,
        number: int | None = None,
        trial: Trial | None = None,
    ) -> Sequence[Row]:
        """The rows of some settings on a split, measured now unless they are stored.

        Args:
            config: The method with the settings.
            settings: The settings that were searched; empty for the given ones.
            split: Which edits.
            number: The number of the trial; None for the given settings.
            trial: Optuna's trial, which gets the reports and may be pruned; None for no pruning.
        """
        if self._place.run.reuse(
            "trials", self._place.partition, self._row_key(settings, split, number), part=_part(split, number)
        ):
            rows = self._stored(split, number)
            for step, row in enumerate(rows):
                if trial is not None and row["reported"] is not None:
                    trial.report(row["reported"], step)
            return rows
        rows, state, error = self._measure(config, split, trial)
        return self._store(rows, settings, split, number, state=state, error=error)

    def _measure(self, config: MethodConfig, split: Split, trial: Trial | None) -> tuple[list[Row], str, str | None]:
        judging, rows = self._job.judging, list[Row]()
        num_steps = len(judging.seeds) * len(judging.edit_counts)
        for seed in judging.seeds:
            try:
                with closing(self._bench.rows(config, split, seed)) as measured:
                    for row in measured:
                        rows.append(row)
                        if trial is not None:
                            trial.report(row["reported"], len(rows) - 1)
                            if len(rows) < num_steps and trial.should_prune():
                                return rows, "pruned", None
            except EditFailedError as error:
                return [*rows, {"order_seed": seed, "edit_count": judging.edit_counts[-1]}], "failed", str(error)
        return rows, "completed", None

    def _store(
        self,
        rows: Sequence[Row],
        settings: dict[str, Any],
        split: Split,
        number: int | None,
        *,
        state: str,
        error: str | None,
    ) -> Sequence[Row]:
        place = self._place
        shared = {
            **place.partition,
            "model": place.run.model,
            "method": place.method,
            "dataset": place.run.dataset,
            "label": place.label,
            "study": self.key,
            "split": split,
            "trial": number,
            "settings": json.dumps(settings),
            "state": state,
            "error": error,
        }
        key = self._row_key(settings, split, number)
        place.run.store(
            "trials", [row | shared for row in rows], partition=place.partition, key=key, part=_part(split, number)
        )
        return self._stored(split, number)

    def _stored(self, split: Split, number: int | None) -> list[Row]:
        return self._place.run.warehouse.rows("trials", self._place.partition, part=_part(split, number))

    def _row_key(self, settings: dict[str, Any], split: Split, number: int | None) -> str:
        return digest([self.key, settings, split, number])


def _part(split: Split, number: int | None) -> str:
    return f"{split}-{'given' if number is None else number}"


def _value(rows: Sequence[Row]) -> float | None:
    """A trial's objective, the mean over its seeds; None where it was not completed."""
    found = [row["objective"] for row in rows if row["objective"] is not None]
    return fmean(found) if rows[0]["state"] == "completed" and found else None
