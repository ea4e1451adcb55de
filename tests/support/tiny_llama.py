"""A random two-layer Llama with a byte tokenizer, context 128: real, and small enough for any test."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tests.support.tiny_models import llama_config


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte, and three special ones: 0 pads, 1 begins and 2 ends a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokens = ["<pad>", "<s>", "</s>"]
    tokenizer.train_from_iterator(
        [], trainers.BpeTrainer(vocab_size=300, special_tokens=tokens, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )


def write_tiny_llama(folder: Path, *, head_dim: int = 16) -> None:
    """Write it; vLLM's attention on a CPU takes heads of 32 values, and none smaller."""
    fast = byte_tokenizer()
    torch.manual_seed(0)
    config = llama_config(
        len(fast), width=32, mlp_width=48, context=128, head_dim=head_dim,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
