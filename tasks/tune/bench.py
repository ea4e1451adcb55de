"""A model in memory that is edited, judged and restored: what a trial of the search measures."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from typing import Any, Literal

import torch

from overedit.editing.methods.base import MethodConfig, State
from overedit.editing.methods.registry import METHODS
from overedit.editing.model.routing import Router
from overedit.editing.model.weights import apply_update, read_tensors, write_tensors
from overedit.editing.requests import EditRequest
from overedit.editing.storage.checksums import digest
from overedit.editing.trajectory.settings import turn_seed
from overedit.tasks.editing_job.job import method_inputs
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.engine.transformers_engine import TransformersEngine
from overedit.tasks.evaluation.capability.scoring import measure_capability
from overedit.tasks.evaluation.capability.task_loading import TaskLoader
from overedit.tasks.evaluation.options import EvaluationOptions
from overedit.tasks.evaluation.outcomes import PreEdit
from overedit.tasks.evaluation.probing import evaluate_checkpoint
from overedit.tasks.models.loading import LoadedModel, editing_threads
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.system.progress import unseen
from overedit.tasks.system.untrusted import error_message
from overedit.tasks.tune.objective import (
    Capability,
    cheap_score,
    kept_share,
    mean_nll,
    objective,
    outcome_means,
    perplexity_ratio,
)
from overedit.tasks.tune.options import Judging
from overedit.tasks.warehouse.tables import Row

Split = Literal["validation", "test"]

_BATCH_TOKENS = {"cpu": 1024, "cuda": 16_384}  # on two cores 4,096 take 3.5 times as long as 1,024


class EditFailedError(RuntimeError):
    """A method cannot make its edits with these settings, or its weights are not finite."""


class Bench:
    """A model, and what its pristine weights answer; nothing is loaded before the first measurement.

    Args:
        model: Which model.
        judging: How edited weights are judged.
        texts: The texts of the perplexity; empty for none.
        edits: The edits of each split.
    """

    def __init__(
        self,
        model: ModelReference,
        judging: Judging,
        texts: Sequence[str],
        edits: Mapping[Split, Sequence[EditRequest]],
    ) -> None:
        self._reference, self.judging, self.texts, self.edits = model, judging, texts, edits
        self._inputs: dict[str, dict[str, Any]] = {}
        self._pre_edit: dict[Split, PreEdit] = {}

    def rows(self, config: MethodConfig, split: Split, seed: int) -> Generator[Row, None, None]:
        """Edit with a seed's order of a split, and yield a row of the table `trials` at each edit count.

        Identity, label, trial and state are left to the caller. The weights are restored when the iterator is closed.

        Raises:
            EditFailedError: The method failed.
        """
        counts = self.judging.edit_counts
        requests = shuffled(self.edits[split], seed)[: counts[-1]]
        pre_edit, base = self._pristine(split), self._base  # before the first edit
        inputs = self._inputs_of(config)
        begun = time.perf_counter()
        steps = edited(
            self._loaded,
            requests,
            config,
            counts,
            turn_size=self.judging.turn_size,
            seed=seed,
            inputs=inputs,
            route=self._engine.route,
        )
        with closing(steps):
            for count in steps:
                row = self._judge(requests, count, pre_edit, base)
                now = time.perf_counter()
                yield {"order_seed": seed, "edit_count": count, "split": split, "seconds": now - begun} | row
                begun = now

    def _judge(self, requests: Sequence[EditRequest], count: int, pre_edit: PreEdit, base: _Base) -> Row:
        """Measure the weights as they are: all measures at the last count, and the cheap probes before."""
        is_last = count == self.judging.edit_counts[-1]
        options = self.judging.evaluation
        options = options if is_last else options.model_copy(update={"probes": ("edit",)})
        answers = evaluate_checkpoint(self._engine, requests, count, options, pre_edit=pre_edit)
        row: Row = outcome_means(answers.rows)
        if self.texts:
            row["perplexity_ratio"] = perplexity_ratio(self._engine.token_nlls(self.texts), base.nll)
        row["reported"] = cheap_score(row.get("reliability"), row.get("perplexity_ratio"))
        if is_last:
            row |= self._capability_row(base.capability)
            row["objective"] = objective(row)
        return row

    def _capability_row(self, base: Capability | None) -> Row:
        now = self._capability() if base is not None else None
        if base is None or now is None:
            return {}
        return {
            "capability": now.value,
            "capability_n": now.num_items,
            "base_capability": base.value,
            "chance": base.chance,
            "capability_kept": kept_share(now.value, base),
        }

    def _capability(self) -> Capability | None:
        if not self.judging.capability.asked:
            return None
        return Capability.of(measure_capability(self._engine, self.judging.capability, loader=self._loader).scores)

    def _pristine(self, split: Split) -> PreEdit:
        """The pristine model's answers to the locality prompts of a split, with which later answers are compared."""
        if split not in self._pre_edit:
            options: EvaluationOptions = self.judging.evaluation.model_copy(
                update={"probes": ("locality",), "sample": None}
            )
            self._pre_edit[split] = PreEdit.of(evaluate_checkpoint(self._engine, self.edits[split], 0, options).rows)
        return self._pre_edit[split]

    def _inputs_of(self, config: MethodConfig) -> dict[str, Any]:
        options = config.covariance_options
        key = digest([config.covariances, options.model_dump(mode="json") if options is not None else None])
        if key not in self._inputs:
            self._inputs[key] = method_inputs(config, self._loaded, self._reference.digest, unseen)
        return self._inputs[key]

    @cached_property
    def _base(self) -> _Base:
        nll = mean_nll(self._engine.token_nlls(self.texts)) if self.texts else 0.0
        if not math.isfinite(nll):
            raise ValueError("perplexity.corpus: the pristine model's own perplexity of it is not finite")
        return _Base(nll, self._capability())

    @cached_property
    def _engine(self) -> TransformersEngine:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu":
            torch.set_num_threads(editing_threads())
        options = {"kind": "transformers", "dtype": self._reference.dtype, "batch_tokens": _BATCH_TOKENS[device]}
        return TransformersEngine(self._reference, EngineOptions.model_validate(options))

    @cached_property
    def _loader(self) -> TaskLoader:
        return TaskLoader(self.judging.capability)

    @property
    def _loaded(self) -> LoadedModel:
        return self._engine.loaded


class _Base:
    """Measures of the pristine model."""

    def __init__(self, nll: float, capability: Capability | None) -> None:
        self.nll, self.capability = nll, capability


def shuffled(requests: Sequence[EditRequest], seed: int) -> list[EditRequest]:
    """The requests in a seed's order."""
    found = list(requests)
    random.Random(seed).shuffle(found)
    return found


def edited(
    loaded: LoadedModel,
    requests: Sequence[EditRequest],
    config: MethodConfig,
    counts: Sequence[int],
    *,
    turn_size: int,
    seed: int,
    inputs: Mapping[str, Any],
    route: Callable[[Router | None], None] = lambda router: None,
) -> Generator[int, None, None]:
    """Edit a model turn by turn as a trajectory does, and yield each edit count while the model has its weights.

    The weights are restored bit for bit when the iterator ends or is closed.

    Args:
        loaded: The pristine model.
        requests: In the order of editing.
        config: The method's configuration.
        counts: Increasing; all but the last are multiples of `turn_size`.
        turn_size: The edits of a turn.
        seed: Each turn's seed is derived from it.
        inputs: Of the method, from `method_inputs`.
        route: Given the router of a method that keeps its edits beside the weights, and None at the end.

    Raises:
        EditFailedError: The method cannot make the edits, or its weights are not finite.
    """
    base: dict[str, torch.Tensor] = {}
    state: State = {}
    done = 0
    try:
        for count in counts:
            while done < count:
                end = count if config.restarts else min(done + turn_size, count)
                first = 0 if config.cumulative else done
                if config.restarts:
                    write_tensors(loaded.model, base)
                state = _turn(
                    loaded, requests[first:end], config, state, base, seed=turn_seed(seed, first, end), **inputs
                )
                done = end
            if (router := METHODS[config.method].router) is not None:
                route(router(loaded.model, config, state))
            yield count
    finally:
        write_tensors(loaded.model, base)
        route(None)


def _turn(
    loaded: LoadedModel,
    requests: Sequence[EditRequest],
    config: MethodConfig,
    state: State,
    base: dict[str, torch.Tensor],
    **more: Any,
) -> State:
    """Call the method once and write its update; `base` gets the pristine values of newly edited parameters."""
    try:
        result = METHODS[config.method].function(*loaded, requests, config, state, **more)
    except (ValueError, torch.linalg.LinAlgError, torch.OutOfMemoryError) as error:  # type: ignore[attr-defined]
        raise EditFailedError(error_message(error, 500)) from error
    base |= read_tensors(loaded.model, [name for name in result.update if name not in base])
    apply_update(loaded.model, result.update)
    if not all(bool(loaded.model.get_parameter(name).isfinite().all()) for name in result.update):
        raise EditFailedError("the weights are not finite")
    return result.state
