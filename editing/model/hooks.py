"""Looking into a forward pass: what enters and leaves named modules, without hooks that could stay behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Trace:
    """What named modules took in and gave out in the passes inside a `traced` block; the last pass counts."""

    def __init__(self) -> None:
        self.inputs: dict[str, torch.Tensor] = {}
        """Module name -> its first input, detached."""
        self.outputs: dict[str, torch.Tensor] = {}
        """Module name -> its output (the first member, if it is a tuple), part of the graph where there is one."""

    def output_gradients(self, scalar: torch.Tensor, gradient: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Gradients of a scalar with respect to every recorded output: one backward pass, no weight gradients.

        The pass goes back to the lowest recorded module and no further, provided that no parameter asks for a
        gradient. A recorded module that the scalar does not depend on gets zeros.

        Args:
            scalar: What is differentiated; or any tensor between the outputs and a scalar, with
            gradient: the scalar's gradient with respect to that tensor.
        """
        outputs = list(self.outputs.values())
        found = torch.autograd.grad(scalar, outputs, gradient, allow_unused=True, materialize_grads=True)
        return dict(zip(self.outputs, found, strict=True))


@contextmanager
def traced(model: nn.Module, names: Sequence[str], *, gradients: bool = False) -> Iterator[Trace]:
    """Record the inputs and outputs of modules.

    Args:
        model: The model; it has its former hooks, and no others, after the block.
        names: Module names.
        gradients: Make the outputs part of a graph, so that `Trace.output_gradients` works though no parameter asks
            for gradients. The graph begins at the first of the modules.

    Raises:
        AttributeError: There is no module of a name.
    """
    trace = Trace()

    def recorder(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def record(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            out = output[0] if isinstance(output, tuple) else output
            if gradients and not out.requires_grad:
                out.requires_grad_()
            trace.inputs[name], trace.outputs[name] = inputs[0].detach(), out

        return record

    modules = {name: model.get_submodule(name) for name in names}
    handles = [module.register_forward_hook(recorder(name)) for name, module in modules.items()]
    try:
        yield trace
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def standing_in(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Let modules compute something else inside the block; afterwards they are as before.

    Args:
        forwards: Module -> what it computes instead of its `forward`, with the same arguments.
    """
    kept = {module: module.__dict__.get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            module.__dict__["forward"] = forward
        yield
    finally:
        for module, before in kept.items():
            if before is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = before


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and no parameter that asks for gradients; both are as before after the block."""
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        model.eval()
        model.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
        for module, mode in modes.items():
            module.training = mode
