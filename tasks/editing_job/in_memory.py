"""Editing a model that is in memory already: the weights are written, and can be taken back bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import MethodConfig
from overedit.editing.methods.registry import METHODS
from overedit.editing.model.routing import Router
from overedit.editing.model.weights import apply_update, checksum, read_tensors, write_tensors
from overedit.editing.requests import EditRequest
from overedit.editing.restraints import restrain_trajectory
from overedit.editing.storage.checksums import digest
from overedit.editing.trajectory.settings import turn_seed
from overedit.tasks.editing_job.job import method_inputs
from overedit.tasks.models.loading import LoadedModel
from overedit.tasks.system.progress import ShowProgress, unseen


class Edit:
    """Edits in a model's weights; in a `with` block, they are taken back at its end."""

    def __init__(
        self,
        model: PreTrainedModel,
        base: Mapping[str, torch.Tensor],
        log: Sequence[dict[str, Any]],
        router: Router | None = None,
    ) -> None:
        self._model, self._base = model, base
        self.log = log
        """What the method reported, one entry per turn."""
        self.router = router
        """Of a method that keeps its edits beside the weights; `editing.model.routing.routed` runs a model with it."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the edited parameters."""
        return tuple(self._base)

    def undo(self) -> None:
        """Give the edited parameters the values that they had before, bit for bit."""
        write_tensors(self._model, self._base)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


def edit_in_memory(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    config: MethodConfig,
    *,
    turn_size: int = 100,
    seed: int = 0,
    inputs: Mapping[str, Any] | None = None,
    show: ShowProgress = unseen,
) -> Edit:
    """Write edits into a model, turn by turn, with the bits that an editing job of the same settings has.

    Args:
        model: Changed in place; as it was before if this fails.
        tokenizer: Its tokenizer.
        requests: At least one, in the order of editing.
        config: The method's configuration.
        turn_size: The most edits that one call of the method takes; cumulative methods take all in one.
        seed: Each turn's seed is derived from it.
        inputs: What the method is given besides, by argument; by default it is computed from the model.
        show: Shows the progress.

    Raises:
        ValueError: A request, a site or a corpus that does not fit the model.
    """
    method = METHODS[config.method]
    step = len(requests) if config.cumulative else turn_size
    if inputs is None:
        inputs = method_inputs(config, LoadedModel(model, tokenizer), _digest_of(model, config), show)
    base: dict[str, torch.Tensor] = {}
    state: dict[str, torch.Tensor] = {}
    log: list[dict[str, Any]] = []
    with show(f"Editing with {method.label}", "edits") as progress:
        try:
            for first in range(0, len(requests), step):
                turn = requests[first : first + step]
                end = first + len(turn)
                result = method.function(
                    model,
                    tokenizer,
                    turn,
                    config,
                    state,
                    seed=turn_seed(seed, first, end),
                    progress=_counting(progress, first, end, len(requests)),
                    **inputs,
                )
                base |= read_tensors(model, [name for name in result.update if name not in base])
                apply_update(model, result.update)
                state = result.state
                log.append({"first": first + 1, "last": end, **result.log})
            log[-1] |= restrain_trajectory(model, config.restraint, base) or {}
        except BaseException:
            write_tensors(model, base)
            raise
    router = method.router(model, config, state) if method.router is not None else None
    return Edit(model, base, log, router)


def _counting(progress: Callable[[int, int], None], first: int, end: int, total: int) -> Callable[[int, int], None]:
    """A method counts its own steps; this counts edits."""
    return lambda done, steps: progress(first + (end - first) * done // max(steps, 1), total)


def _digest_of(model: PreTrainedModel, config: MethodConfig) -> str:
    """What names the weights where a method's inputs are cached; not read where it has none."""
    if config.covariance_options is None:
        return ""
    return digest({name: checksum(parameter) for name, parameter in model.named_parameters()})
