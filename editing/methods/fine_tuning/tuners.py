"""The tuners of the library peft: which of them can be merged into weights, and their options.

peft is imported where it is used: that takes seconds, and only the method `peft` needs it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

TUNERS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {  # tuner -> the options whose default is another one here
        "lora": {},
        "adalora": {},
        "adamss": {},
        "boft": {},
        "c3a": {"init_weights": True},  # peft starts from a random change
        "deft": {},
        "delora": {},
        "fourierft": {"init_weights": True},  # the same
        "frod": {"progressbar": False},
        "glora": {},
        "gralora": {},
        "hira": {},
        "hra": {},
        "ia3": {},
        "loha": {},
        "lokr": {},
        "miss": {},
        "oft": {},
        "osf": {},
        "peanut": {},
        "psoft": {},
        "pvera": {},
        "randlora": {},
        "road": {},
        "shira": {},
        "supertuning": {},
        "tinylora": {},
        "unilora": {},
        "vblora": {},
        "vera": {},
        "waveft": {},
    }
)
"""The tuners that peft can create on projections and merge into their weights."""

_PROMPTS = "it trains a prompt, not weights"
UNMERGEABLE: Mapping[str, str] = MappingProxyType(
    {
        "adaption_prompt": _PROMPTS,
        "beft": "it trains biases alone, and most projections have none",
        "cartridge": _PROMPTS,
        "cpt": _PROMPTS,
        "lily": "its layers share adapters, for which peft has no merge",
        "ln_tuning": "it trains norms; locft_bf and ft_m train the weights of a projection themselves",
        "multitask_prompt_tuning": _PROMPTS,
        "p_tuning": _PROMPTS,
        "poly": "it mixes adapters by the task of each input",
        "prefix_tuning": _PROMPTS,
        "prompt_tuning": _PROMPTS,
        "shadow": "it trains a second network beside the model",
        "trainable_tokens": "it trains rows of the embedding, not projections",
        "xlora": "it mixes adapters by the text of each input",
    }
)
"""peft's other tuners, and why they have no place here."""

FLOAT32 = frozenset({"adamss"})
"""Tuners that compute in float32 alone; the others compute in the model's dtype, with adapters in float32."""

_SET_HERE = frozenset(
    {
        *("target_modules", "exclude_modules", "target_parameters", "layers_to_transform", "layers_pattern"),
        *("feedforward_modules", "fan_in_fan_out", "modules_to_save", "trainable_token_indices", "layer_replication"),
        *("total_step", "inference_mode", "progressbar", "ensure_weight_tying", "megatron_core", "runtime_config"),
    }
)
"""Follow from the sites, the schedule and the model."""
_NOT_MERGED = frozenset(
    {
        *("bias", "lora_bias", "alora_invocation_tokens", "use_bdlora", "use_qalora", "qalora_group_size"),
        *("sample_at_inference", "runtime_offload_base_weight", "init_warmup", "final_warmup", "mask_interval"),
    }
)
"""Biases, parts that depend on the input, and schedules that need another training loop."""
_NEED_DATA = frozenset({"eva", "corda", "lora_ga", "loftq"})
"""Values of `init_lora_weights` that need texts or a quantized model."""


def check_tuner(name: str) -> str:
    """Check that a tuner is accepted.

    Raises:
        ValueError: It is unknown, or has no mergeable form.
    """
    if name in TUNERS:
        return name
    why = f"{name} cannot be merged into weights: {UNMERGEABLE[name]}" if name in UNMERGEABLE else f"{name} is unknown"
    raise ValueError(f"{why}; accepted: {', '.join(TUNERS)}")


def accepted_options(tuner: str) -> dict[str, Any]:
    """The options of a tuner, each with its type."""
    config = _config_class(tuner)
    from peft import PeftConfig

    own = {field.name for field in dataclasses.fields(config)} - {
        field.name for field in dataclasses.fields(PeftConfig)
    }
    if tuner == "adalora":
        own -= {"r", "rank_pattern"}  # replaced by init_r, and a result
    found = {name for name in own - _SET_HERE - _NOT_MERGED if not _is_left_out(name)}
    return {name: hint for name, hint in get_type_hints(config).items() if name in found}


def _is_left_out(name: str) -> bool:
    """Whether an option needs another object, or a file, or a training loop of its own."""
    return name.endswith("_config") or name.startswith(("save_", "use_asa", "asa_"))


def check_options(tuner: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check options by their names and types and by peft's own rules; sizes that depend on the model come later.

    Returns:
        The options, each in the type that peft declares.

    Raises:
        ValueError: An option is unknown, has a value of another type, or one that peft refuses.
    """
    if not options:
        return {}
    accepted, checked = accepted_options(tuner), {}
    for name, value in options.items():
        if name not in accepted:
            raise ValueError(f"{name} is no option of {tuner} here; accepted: {', '.join(sorted(accepted))}")
        try:
            checked[name] = TypeAdapter(accepted[name]).validate_python(value)
        except ValidationError as error:
            raise ValueError(f"{name}: {value!r} is refused: {error.errors()[0]['msg']}") from None
    if str(checked.get("init_lora_weights")).lower() in _NEED_DATA:
        raise ValueError(
            f"init_lora_weights: {checked['init_lora_weights']!r} needs data, which no tuner here is given"
        )
    built = tuner_config(tuner, checked, targets=("x",), feedforward=(), total_steps=2**31)
    if tuner == "adalora" and not 0 < built.target_r < built.init_r:
        raise ValueError(f"target_r: {built.target_r} is not between 0 and init_r, {built.init_r}")
    return checked


def tuner_config(
    tuner: str, options: Mapping[str, Any], *, targets: Iterable[str], feedforward: Iterable[str], total_steps: int
) -> Any:
    """A configuration of peft.

    Args:
        tuner: One of `TUNERS`.
        options: As checked by `check_options`.
        targets: Names of the projections.
        feedforward: Those of them whose input IA3 scales, in place of their output.
        total_steps: The steps of the training, for AdaLoRA's budget of ranks.

    Raises:
        ValueError: peft refuses a value.
    """
    config = _config_class(tuner)
    names = {field.name for field in dataclasses.fields(config)}
    given = {"feedforward_modules": list(feedforward), "total_step": total_steps}
    try:
        return config(
            target_modules=list(targets),
            **{name: value for name, value in given.items() if name in names},
            **{**TUNERS[tuner], **options},
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"options: peft refuses them for {tuner}: {error}") from error


def _config_class(tuner: str) -> Any:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import PeftType

    return PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(tuner.upper())]
