"""A random Llama and random requests, of the sizes that a benchmark asks for."""

from __future__ import annotations

import random

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from overedit.editing.methods.fine_tuning.tuner import Sample


def make_model(*, hidden_size: int, num_layers: int, vocabulary: int) -> LlamaForCausalLM:
    """The model: eight heads, an MLP four times as wide as the hidden size, in evaluation mode."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        vocab_size=vocabulary,
        max_position_embeddings=128,
    )
    return LlamaForCausalLM(config).eval()


def make_samples(num_requests: int, vocabulary: int) -> list[Sample]:
    """Random tokens with the lengths of short questions: prompts of 6-18 tokens, targets of 2-6 (end included)."""
    draw = random.Random(0)
    samples = []
    for _ in range(num_requests):
        prompt, target = draw.randint(6, 18), draw.randint(2, 6)
        ids = tuple(draw.randrange(vocabulary) for _ in range(prompt + target))
        samples.append(Sample(ids, tuple(range(prompt - 1, prompt + target - 1)), ids[prompt:]))
    return samples
