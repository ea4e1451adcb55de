"""What a run may ask of methods that keep their edits beside the weights."""

from __future__ import annotations

from collections.abc import Sequence

from overedit.editing.methods.base import MethodConfig
from overedit.editing.methods.registry import METHODS


def beside_weights(methods: Sequence[MethodConfig]) -> list[str]:
    """The names of those methods."""
    return sorted({method.method for method in methods if METHODS[method.method].router is not None})


def check_beside_weights(methods: Sequence[MethodConfig], *, engine: str, after: Sequence[object]) -> None:
    """Check that a run can measure such methods.

    Args:
        methods: The run's.
        engine: The key `engine.kind`.
        after: The steps after the edits.

    Raises:
        ValueError: It cannot; the message names the key.
    """
    if not (names := ", ".join(beside_weights(methods))):
        return
    if engine != "transformers":
        raise ValueError(
            f"engine.kind: {engine!r} runs the weights alone, and {names} keeps its edits beside them; accepted: "
            "transformers"
        )
    if after:
        raise ValueError(f"after: acts on the weights, and {names} does not change them; leave it out")
    for key in ("restraint", "shards"):
        if given := [
            method.method for method in methods if method.method in names and getattr(method, key) is not None
        ]:
            raise ValueError(f"{key}: acts on a change of the weights, and {given[0]} makes none; leave it out")


def refuse_beside_weights(methods: Sequence[MethodConfig], *, what: str) -> None:
    """Refuse such methods.

    Args:
        methods: The run's.
        what: Why, as the end of a sentence that begins with the method's name.

    Raises:
        ValueError: There is one.
    """
    if names := ", ".join(beside_weights(methods)):
        raise ValueError(f"methods: {names} keeps its edits beside the weights, {what}")
