"""The shapes of published models, without their weights."""

from __future__ import annotations

from typing import Any

from transformers import LlamaConfig, Qwen2Config

_SHARED: dict[str, Any] = {
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def llama_3_8b() -> LlamaConfig:
    """Llama-3-8B's."""
    size = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 128256}
    return LlamaConfig(**_SHARED | size, rope_theta=500000.0)


def qwen2_5_72b(*, layers: int = 80) -> Qwen2Config:
    """Qwen2.5-72B's, or its first layers."""
    size = {"hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": layers, "vocab_size": 152064}
    return Qwen2Config(**_SHARED | size | {"num_attention_heads": 64}, tie_word_embeddings=False)
