"""One model family after another through both engines, with two of its weights exchanged while they run.

The weights are chosen to be fused, biased, transposed and permuted ones in vLLM.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
)

from overedit.tasks.engine.factory import load_in_process
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.models.reference import ModelReference
from tests.support.checkpoints import write_tensors
from tests.support.small_model import BOS, EOS, FACTS, PAD, changed, small_tokenizer


class Family(NamedTuple):
    """A kind of model, and two of its weights."""

    config: type[PretrainedConfig]
    settings: dict[str, Any]
    first: str
    second: str


_TOKENS = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
_WIDTHS = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
_SIZES = _TOKENS | _WIDTHS | {"intermediate_size": 160}
FAMILIES = {
    "qwen2": Family(
        Qwen2Config,
        _SIZES | {"num_key_value_heads": 1},
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.0.self_attn.q_proj.weight",
    ),
    "mistral": Family(
        MistralConfig,
        _SIZES | {"num_key_value_heads": 1, "head_dim": 32},
        "model.layers.0.mlp.down_proj.weight",
        "model.layers.1.self_attn.v_proj.weight",
    ),
    "gpt2": Family(
        GPT2Config,
        {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": BOS, "eos_token_id": EOS},
        "transformer.h.0.mlp.c_proj.weight",
        "transformer.h.1.attn.c_proj.weight",
    ),
    "gpt_neox": Family(
        GPTNeoXConfig,
        _SIZES,
        "gpt_neox.layers.0.mlp.dense_4h_to_h.weight",
        "gpt_neox.layers.1.attention.query_key_value.weight",
    ),
}


def write_model(name: str, folder: Path) -> dict[str, torch.Tensor]:
    """Write a random model of a family and a tokenizer -> its weights."""
    tokenizer = small_tokenizer([f"{prompt} {answer}." for prompt, answer in FACTS])
    torch.manual_seed(0)
    family = FAMILIES[name]
    model = AutoModelForCausalLM.from_config(family.config(vocab_size=len(tokenizer), **family.settings))
    with torch.no_grad():
        for parameter in model.parameters():  # livelier than a fresh model: answers differ, and no bias is 0
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {key: value.detach() for key, value in model.named_parameters()}


def check(name: str, folder: Path, ranks: int = 1) -> None:
    """Swap two checkpoints and the base into both engines, which must verify each swap and answer alike.

    Args:
        name: The family.
        folder: For its model and checkpoints.
        ranks: Over how many of them vLLM splits each layer.
    """
    weights = write_model(name, folder / name)
    steps = [
        write_tensors(folder / f"{name}-{i}", changed(weights, key, by=3.0))
        for i, key in enumerate((FAMILIES[name].first, FAMILIES[name].second))
    ]
    engines = [
        load_in_process(ModelReference(str(folder / name)), options)
        for options in (EngineOptions(kind="vllm", tensor_parallel=ranks), EngineOptions(kind="transformers"))
    ]
    prompts = [prompt for prompt, _ in FACTS]
    answers = []
    for step in (None, *steps, None):
        assert all(engine.swap(step).verified for engine in engines), (name, step)
        ours, theirs = (engine.generate(prompts, max_tokens=8) for engine in engines)
        assert ours == theirs, (name, step)
        answers.append(ours)
    assert answers[0] == answers[3] and answers[0] != answers[1] and answers[0] != answers[2], name


def main(ranks: int = 1) -> None:
    """Check the family and use the folder that the arguments name."""
    check(sys.argv[1], Path(sys.argv[2]), ranks)
    print(sys.argv[1], "agrees")
