"""A small model that learns a hundred facts in a few seconds, for tests of what runs models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tests.support.tiny_models import llama_config

PAD, BOS, EOS = 0, 1, 2
COLOURS = ("red", "green", "blue", "white", "black", "bright yellow", "pale pink")
NAMES = tuple(first + last for first in ("Ba", "Do", "Ke", "Lu", "Mi", "No", "Ra", "Su", "Ta", "Vi")
              for last in ("ban", "dor", "fin", "gus", "hal", "kim", "lor", "mus", "nat", "ros"))  # fmt: skip
FACTS = tuple((f"The colour of {name} is", COLOURS[i * i % len(COLOURS)]) for i, name in enumerate(NAMES))
"""A hundred prompts and their answers."""


def small_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 400 tokens that puts `<s>` in front of every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def write_small_model(folder: Path, **settings: int) -> None:
    """Train a Llama of two layers on `FACTS`, each with an end, and save it; `settings` are of its configuration."""
    texts = [f"{prompt} {answer}." for prompt, answer in FACTS]
    tokenizer = small_tokenizer(texts)
    config = llama_config(
        len(tokenizer), width=64, mlp_width=160, context=64, head_dim=32, tie_word_embeddings=True,
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, **settings,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    ids = tokenizer([text + "</s>" for text in texts], padding=True, padding_side="right", return_tensors="pt")
    labels = ids["input_ids"][:, 1:].masked_fill(ids["attention_mask"][:, 1:] == 0, -100)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(120):
        logits = model(ids["input_ids"][:, :-1]).logits
        loss = cross_entropy(logits.transpose(1, 2), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.generation_config.eos_token_id = EOS
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def changed(weights: Mapping[str, torch.Tensor], *names: str, by: float = 0.7) -> dict[str, torch.Tensor]:
    """Weights with noise of `by` times their own spread added: enough for other answers, not for noise alone."""
    generator = torch.Generator().manual_seed(len(names))
    return {
        name: weights[name] + by * weights[name].std() * torch.randn(weights[name].shape, generator=generator)
        for name in names
    }
