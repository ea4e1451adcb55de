"""Routers: edits that are kept beside a model's weights, and used where the prompt calls for them.

A router exchanges the output of one module. It decides once for each prompt, at the prompt's last token, and keeps to
it while the answer is generated or scored.

Shapes: B sequences, T tokens of a pass, I inputs and O outputs of the module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn

Exchange = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From a module's input (B, T, I) and output (B, T, O) to the output that takes its place, for the first pass over some
prompts, and then for each pass over their next tokens."""


class Router(Protocol):
    """Edits of one module."""

    @property
    def module(self) -> str:
        """The module's name."""

    def start(self, ends_B: torch.Tensor) -> Exchange:
        """Begin with new prompts.

        Args:
            ends_B: The index of each prompt's last token in the first pass, int64; -1 for a text without a prompt.
        """


@contextmanager
def routed(model: nn.Module, router: Router | None, ends: Sequence[int]) -> Iterator[None]:
    """Run a model with a router inside the block: one pass over prompts, and any number over their next tokens.

    Args:
        model: After the block it has the hooks that it had before.
        router: None for none.
        ends: As in `Router.start`.

    Raises:
        AttributeError: The model has no such module.
    """
    if router is None:
        yield
        return
    module = model.get_submodule(router.module)
    exchange: Exchange | None = None

    def exchanged(_: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        nonlocal exchange
        if exchange is None:
            exchange = router.start(torch.tensor(ends, device=output.device))
        return exchange(inputs[0], output)

    handle = module.register_forward_hook(exchanged)
    try:
        yield
    finally:
        handle.remove()
