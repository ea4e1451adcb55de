"""Checkpoints whose edits are kept beside the weights."""

from __future__ import annotations

from transformers import PreTrainedModel

from overedit.editing.methods.registry import METHODS
from overedit.editing.model.routing import Router
from overedit.editing.trajectory.checkpoint import Checkpoint


def router_of(model: PreTrainedModel, checkpoint: Checkpoint) -> Router | None:
    """What makes a model use a checkpoint's edits beside the weights; None where the weights have them.

    Raises:
        DamagedCheckpointError: As `Checkpoint.state`.
    """
    method = METHODS.get(checkpoint.record.method.get("method", ""))
    if method is None or method.router is None:
        return None
    return method.router(model, method.config.model_validate(checkpoint.record.method), checkpoint.state())


def check_weights_only(checkpoint: Checkpoint) -> None:
    """Check that a checkpoint's edits are in the weights.

    Raises:
        ValueError: They are kept beside the weights.
    """
    method = METHODS.get(checkpoint.record.method.get("method", ""))
    if method is not None and method.router is not None:
        raise ValueError(
            f"{checkpoint.folder}: {method.label} keeps its edits beside the weights, and only Overedit's transformers "
            "engine reads them there (engine.kind: transformers)"
        )
