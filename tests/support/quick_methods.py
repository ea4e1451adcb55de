"""Quick settings for any method on the tiny models, derived from the fields of its configuration."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from overedit.editing.methods.base import MethodConfig
from overedit.editing.methods.locate_then_edit.covariance import second_moments
from overedit.editing.methods.locate_then_edit.curvature import curvature_of_texts, is_factor
from overedit.editing.methods.registry import METHODS
from tests.support.teachable_models import WORDS, byte_tokenizer

BY_FIELD: dict[str, Any] = {
    "site": "1.down_proj",
    "sites": ("1.down_proj", "2.up_proj"),
    "layers": (0, 1),
    "energy": 0.5,
    "epochs": 2,
    "max_steps": 2,
    "num_steps": 4,
    "learning_rate": 1e-3,
    "threshold": 1.0,
    "warm_up": 0,
    "values": {"num_steps": 4},
    "contexts": {"starts": ("A", "The"), "num_tokens": 3},
    "covariance": {"corpus": "none"},
}
"""Name of a field -> a value with which an edit of a tiny model takes a second; other fields keep their defaults."""


def quick_settings(config: type[MethodConfig]) -> dict[str, Any]:
    """A few steps at sites that every tiny model has, for a configuration of any method."""
    fields = config.model_fields
    settings = {name: value for name, value in BY_FIELD.items() if name in fields}
    if "batch_size" in fields and (fields["batch_size"].default or 0) > 4:
        settings["batch_size"] = 4  # several batches of the six requests
    if "distribution" in fields and fields["distribution"].default == "single":
        settings["layers"] = (1,)
    return settings


def config_of(name: str) -> MethodConfig:
    return METHODS[name].config(**quick_settings(METHODS[name].config))


def covariance_of(name: str, model: PreTrainedModel) -> dict[str, Any]:
    """The argument `covariance` of a method that needs one."""
    config = config_of(name)
    if config.covariance_options is None:
        return {}
    read = curvature_of_texts if is_factor(config.covariances[0]) else second_moments
    texts = [f"{i} bottles of {word}, {i * i} in all" for i, word in enumerate(WORDS * 4)]
    return {"covariance": read(model, byte_tokenizer(), texts, config.covariances, max_length=32)}
