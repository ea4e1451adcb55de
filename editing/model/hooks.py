"""Hooks into a forward pass that cannot outlive their `with` block: tracing, replacing and stopping modules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn


class Trace:
    """Inputs and outputs of named modules, recorded inside a `traced` block; a later pass overwrites an earlier one."""

    def __init__(self) -> None:
        self.inputs: dict[str, torch.Tensor] = {}
        """Module name -> its first input, detached."""
        self.outputs: dict[str, torch.Tensor] = {}
        """Module name -> its output (the first member of a tuple), attached to the graph if there is one."""

    def output_gradients(self, scalar: torch.Tensor, gradient: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Gradients of a scalar with respect to every recorded output: one backward pass, no weight gradients.

        The pass ends at the lowest recorded module, provided that no parameter requires a gradient. A recorded module
        that the scalar does not depend on gets zeros.

        Args:
            scalar: The scalar to differentiate, or a tensor between the outputs and the scalar.
            gradient: In the second case, the scalar's gradient with respect to that tensor.
        """
        outputs = list(self.outputs.values())
        found = torch.autograd.grad(scalar, outputs, gradient, allow_unused=True, materialize_grads=True)
        return dict(zip(self.outputs, found, strict=True))


@contextmanager
def traced(model: nn.Module, names: Sequence[str], *, gradients: bool = False) -> Iterator[Trace]:
    """Record the inputs and outputs of modules.

    Args:
        model: The model; after the block it has the hooks that it had before.
        names: Module names.
        gradients: Attach the outputs to a graph, so that `Trace.output_gradients` works although no parameter requires
            gradients. The graph starts at the first of the modules.

    Raises:
        AttributeError: The model has no module of that name.
    """
    trace = Trace()

    def recorder(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def record(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            out = first_member(output)
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
    """Replace the forward functions of modules inside the block.

    Args:
        forwards: Module -> the function called instead of its `forward`, with the same arguments.
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


def first_member(output: Any) -> Any:
    """A module's hidden states: its output, or the first member of a tuple."""
    return output[0] if isinstance(output, tuple) else output


class Passage(NamedTuple):
    """What one module received and returned."""

    hidden: torch.Tensor
    """Its first argument, or the one named `hidden_states`."""
    output: Any
    """None where the pass stopped before the module ran."""


class _ForwardStopped(BaseException):
    """Ends a forward pass. Not an Exception, so that no library catches it as an error."""


@contextmanager
def stop_forward_at(modules: Collection[nn.Module], *, entering: bool = False) -> Iterator[dict[nn.Module, Passage]]:
    """Run one forward pass only until all of the modules have been reached; the block ends there.

    Args:
        modules: At least one. Those below the last one run as usual.
        entering: Stop before the last of them runs, not after it.

    Yields:
        Module -> its input and output, filled during the pass.

    Raises:
        AssertionError: The forward pass in the block ended without reaching every module.
    """
    reached: dict[nn.Module, Passage] = {}

    def reach(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any = None) -> None:
        reached[module] = Passage(args[0] if args else kwargs["hidden_states"], output)
        if len(reached) == len(modules):
            raise _ForwardStopped

    if entering:
        handles = [module.register_forward_pre_hook(reach, with_kwargs=True) for module in modules]
    else:
        handles = [module.register_forward_hook(reach, with_kwargs=True) for module in modules]
    try:
        yield reached
    except _ForwardStopped:
        return
    finally:
        for handle in handles:
            handle.remove()
    raise AssertionError("the forward pass did not reach every module at which it was to stop")


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, with no parameter requiring gradients; both are restored after the block."""
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
