"""The registry of methods. To add one, write its module, which ends with its `METHOD`, and add its name to `NAMES`.

The modules are imported by name, so the stage key of one method does not cover the code of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce, wraps
from importlib import import_module
from operator import or_
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field

from overedit.editing.methods.base import EditResult, Method, MethodConfig
from overedit.editing.restraints import restrained_turns
from overedit.editing.shards import sharded_turns

NAMES = (
    "locft_bf",
    "ft_l",
    "ft_m",
    "ultraedit",
    "stableedit",
    "rome",
    "r_rome",
    "memit",
    "emmet",
    "alphaedit",
    "memit_seq",
    "rlsedit",
    "betaedit",
    "crispedit",
    "peft",
    "grace",
)
"""The modules of this folder, one method each, in the order in which they are listed to users."""


def _load() -> dict[str, Method]:
    methods: list[Method] = [import_module(f"overedit.editing.methods.{name}").METHOD for name in NAMES]
    return {
        method.name: method._replace(function=_with_gradients(sharded_turns(restrained_turns(method.function))))
        for method in methods
    }


def _with_gradients(method: Callable[..., EditResult]) -> Callable[..., EditResult]:
    """A method that works under `torch.no_grad()` and `torch.inference_mode()` too."""

    @wraps(method)
    def edit(*arguments: Any, **more: Any) -> EditResult:
        with torch.inference_mode(False), torch.enable_grad():
            return method(*arguments, **more)

    return edit


METHODS: Mapping[str, Method] = MappingProxyType(_load())
"""Every method by the `method` of its configuration."""

if TYPE_CHECKING:
    AnyMethod = MethodConfig
else:
    AnyMethod = Annotated[reduce(or_, (method.config for method in METHODS.values())), Field(discriminator="method")]
    """The configuration of any method, validated as the class that its field `method` names."""
