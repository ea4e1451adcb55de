"""The shapes of published models, without their weights."""

from __future__ import annotations

from transformers import LlamaConfig


def llama_3_8b() -> LlamaConfig:
    """Llama-3-8B's."""
    return LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        rope_theta=500000.0,
        max_position_embeddings=8192,
        bos_token_id=1,
        eos_token_id=2,
    )
