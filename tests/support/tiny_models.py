"""A tiny random model of every known family."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PreTrainedModel

WIDTHS = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
COMMON = WIDTHS | {"vocab_size": 264, "max_position_embeddings": 64, "initializer_range": 0.15, "pad_token_id": None}
GROUPED = COMMON | {"num_key_value_heads": 2}
EXPERTS = GROUPED | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
OLD = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "vocab_size": 264, "initializer_range": 0.15}
SETTINGS: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "mistral": GROUPED,
    "qwen2": GROUPED | {"tie_word_embeddings": True},
    "qwen3": GROUPED | {"head_dim": 8},
    "gemma": GROUPED | {"head_dim": 8},
    "gemma2": GROUPED | {"head_dim": 8},
    "gemma3_text": GROUPED | {"head_dim": 8},
    "phi3": GROUPED | {"bos_token_id": 1, "eos_token_id": 2},
    "phi": GROUPED,
    "mixtral": GROUPED | {"num_local_experts": 4},
    "qwen3_moe": EXPERTS | {"head_dim": 8},
    "qwen2_moe": EXPERTS | {"shared_expert_intermediate_size": 24},
    "gpt2": OLD | {"bos_token_id": 0, "eos_token_id": 0, "resid_pdrop": 0.1},
    "gptj": OLD | {"rotary_dim": 4, "bos_token_id": 0, "eos_token_id": 0},
    "gpt_neox": COMMON | {"hidden_dropout": 0.1},
}


def tiny(family: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, **settings: Any) -> PreTrainedModel:
    """Three layers of width 32, MLP 48 (the GPT-2 kind: 128), 264 tokens, 64 positions; in evaluation mode."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **(SETTINGS[family] | settings))
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def llama_config(num_tokens: int, *, width: int, mlp_width: int, context: int, **settings: Any) -> LlamaConfig:
    """Of a Llama with two layers of two heads, which share one key and value head unless `settings` say otherwise."""
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    sizes = {"hidden_size": width, "intermediate_size": mlp_width, "max_position_embeddings": context}
    return LlamaConfig(vocab_size=num_tokens, **(shape | sizes | settings))
