"""Trains the pocket model on a world and saves it as an ordinary Hugging Face folder."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch.nn import functional
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from overedit.tasks.pocket_model.knowledge import Batch, collate, exact_match, perplexity, tokenize
from overedit.tasks.pocket_model.muon import Muon
from overedit.tasks.pocket_model.tokenizer import build_tokenizer
from overedit.tasks.pocket_world import corpus, skills
from overedit.tasks.pocket_world.world import Statement, World

logger = logging.getLogger(__name__)

Row = tuple[list[int], list[bool]]
Progress = Callable[[int, int, float], None]
"""Called with (steps done, total steps, loss)."""


class TrainingConfig(BaseModel):
    """The training recipe of the pocket model."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = 0
    """Seed of the initial weights and the order of the sentences."""
    hidden_size: int = 128
    num_layers: int = 6
    num_heads: int = 4
    """Query heads; hidden_size / num_heads is the head size, which vLLM requires to be 32 or more."""
    num_key_value_heads: int = 2
    mlp_size: int = 512
    max_positions: int = 512
    num_epochs: int = Field(default=11, ge=1)
    curriculum: tuple[int, ...] = (10, 3)
    """The first epochs are about every tenth and every third person only: with few people the model soon learns that
    answers depend on names, which takes long with many people at once (Zucchet et al. 2025, "How do language
    models learn facts?")."""
    num_skills: int = 1200
    """Sentences of arithmetic and of copying per epoch; a third as many of agreement."""
    batch_tokens: int = 1024
    """Tokens per step, padding included."""
    max_sentences: int = 3
    """A training text has between one and this many sentences."""
    learning_rate: float = 5e-3
    """Peak learning rate of AdamW, for the embedding and the norms."""
    matrix_learning_rate: float = 0.02
    """Peak learning rate of Muon, for the matrices of the layers."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises; afterwards it follows a cosine down."""
    weight_decay: float = 0.05
    prompt_weight: float = 0.1
    """Loss weight of tokens outside answers (an answer token has weight 1)."""
    num_threads: int = 1


def build_model(config: TrainingConfig, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """Make a model with seeded random weights in float32."""
    torch.manual_seed(config.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.mlp_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_key_value_heads,
            head_dim=config.hidden_size // config.num_heads,
            max_position_embeddings=config.max_positions,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def epoch_batches(world: World, config: TrainingConfig, tokenizer: PreTrainedTokenizerBase, index: int) -> list[Batch]:
    """Make the batches of one epoch: shuffled sentences joined into short texts, batched by similar length."""
    order = random.Random(f"{config.seed}/{index}")
    every = config.curriculum[index] if index < len(config.curriculum) else 1
    sentences = corpus.epoch(world, index, num_skills=config.num_skills, every=every)
    order.shuffle(sentences)
    rows = sorted(_joined(sentences, config, tokenizer, order), key=lambda row: len(row[0]))
    batches, start = [], 0
    while start < len(rows):
        end = start + 1
        while end < len(rows) and len(rows[end][0]) * (end + 1 - start) <= config.batch_tokens:
            end += 1
        batches.append(collate(rows[start:end], tokenizer.pad_token_id))
        start = end
    order.shuffle(batches)
    return batches


def _joined(
    sentences: list[Statement], config: TrainingConfig, tokenizer: PreTrainedTokenizerBase, order: random.Random
) -> Iterator[Row]:
    """Join sentences into texts `<s> sentence. sentence. </s>`, which teach the model to end and to continue texts."""
    first, later = (
        tokenize(sentences, tokenizer),
        tokenize([Statement(prompt=f" {s.prompt}", answer=s.answer) for s in sentences], tokenizer),
    )
    start = 0
    while start < len(sentences):
        end = start + order.randint(1, config.max_sentences)
        chosen = [first[start], *later[start + 1 : end]]
        ids = [token for row, _ in chosen for token in row]
        mask = [flag for _, row in chosen for flag in row]
        yield [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id], [False, *mask, True]
        start = end


def _loss(model: LlamaForCausalLM, batch: Batch, prompt_weight: float) -> torch.Tensor:
    """Cross-entropy per token, with less weight on names and phrasings, which are unpredictable, than on answers."""
    logits_BTV = model(input_ids=batch.input_ids_BT, use_cache=False).logits[:, :-1]
    nll_N = functional.cross_entropy(logits_BTV.flatten(0, 1), batch.input_ids_BT[:, 1:].flatten(), reduction="none")
    weight_N = (torch.where(batch.answer_mask_BT[:, 1:], 1.0, prompt_weight) * batch.text_mask_BT[:, 1:]).flatten()
    return (nll_N * weight_N).sum() / weight_N.sum()


def _learning_rate(step: int, num_steps: int, config: TrainingConfig) -> float:
    warmup = max(1, round(config.warmup * num_steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))


def _optimizers(model: LlamaForCausalLM, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding and the norms; `base_lr` is the planned peak."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=config.matrix_learning_rate, weight_decay=config.weight_decay),
        torch.optim.AdamW(others, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers


def _step(optimizers: list[torch.optim.Optimizer], share: float) -> None:
    """One step of each optimizer at this share of its peak learning rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = share * group["base_lr"]
        optimizer.step()
        optimizer.zero_grad()


def fit(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    world: World,
    config: TrainingConfig,
    progress: Progress,
) -> list[float]:
    """Train a model in place.

    Returns:
        The mean loss of each epoch.
    """
    optimizers = _optimizers(model, config)
    per_epoch = len(epoch_batches(world, config, tokenizer, 0))
    num_steps, step, means = per_epoch * config.num_epochs, 0, []
    samples = {kind: random.Random(0).sample(some, min(len(some), 150)) for kind, some in _kinds(world).items()}
    for index in range(config.num_epochs):
        losses = []
        model.train()
        for batch in epoch_batches(world, config, tokenizer, index):
            loss = _loss(model, batch, config.prompt_weight)
            loss.backward()
            _step(optimizers, _learning_rate(min(step, num_steps), num_steps, config))
            losses.append(loss.item())
            step += 1
            progress(min(step, num_steps), num_steps, losses[-1])
        means.append(sum(losses) / len(losses))
        model.eval()
        known = {kind: round(exact_match(model, tokenizer, some), 3) for kind, some in samples.items()}
        logger.info("epoch %d of %d: loss %.4f, exact match %s", index + 1, config.num_epochs, means[-1], known)
    return means


def _kinds(world: World) -> dict[str, list[Statement]]:
    """Statements to measure by kind: trained, held out, and those that the edits' probes depend on."""
    edits = list(world.edits(world.num_known_edits))
    return {
        "recall": corpus.facts(world),
        "unseen_phrasings": corpus.unseen_phrasings(world),
        "edit_prompts": [Statement(prompt=e.prompt, answer=e.target_true or "") for e in edits],
        "locality_probes": [Statement(prompt=p.prompt, answer=p.answer or "") for e in edits for p in e.locality],
        "value_facts": corpus.value_facts(),
        "compositions_trained": corpus.compositions(world, held_out=False),
        "compositions_held_out": corpus.compositions(world, held_out=True),
        "arithmetic_held_out": skills.arithmetic(150, seed=-1, held_out=True),
        "copying_held_out": skills.copying(150, seed=-1, held_out=True),
    }


def measure_folder(world: World, folder: Path) -> dict[str, float]:
    """Measure a saved model: exact match of greedy answers by kind of statement, and perplexity of held-out text."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    figures = {kind: exact_match(model, tokenizer, statements) for kind, statements in _kinds(world).items()}
    return figures | {"perplexity": perplexity(model, tokenizer, corpus.perplexity_texts(200))}


def train(world: World, config: TrainingConfig, out_dir: Path, progress: Progress) -> dict[str, float]:
    """Train the pocket model on a world, save it as a Hugging Face folder, and measure what it knows.

    The weights are rounded to bfloat16 and stored as float32: a run in either dtype starts from the same values, and
    the file compresses well.

    Args:
        world: The world to learn.
        config: The recipe.
        out_dir: The folder to write; created if missing.
        progress: Called after every step.

    Returns:
        Mean loss of the first and the last epoch, and what `measure_folder` measures.
    """
    torch.set_num_threads(config.num_threads)
    tokenizer = build_tokenizer()
    model = build_model(config, tokenizer)
    losses = fit(model, tokenizer, world, config, progress)
    save(model.bfloat16().float(), tokenizer, out_dir)
    return {"first_loss": losses[0], "last_loss": losses[-1]} | measure_folder(world, out_dir)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write config, weights, tokenizer and generation config, so that transformers and vLLM load the folder."""
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
