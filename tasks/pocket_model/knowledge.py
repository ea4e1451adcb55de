"""Measures what the pocket model knows: exact match of greedy answers, and perplexity of plain text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.engine.transformers_engine import TransformersEngine
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.pocket_world.lm_eval_items import write_lm_eval_tasks
from overedit.tasks.pocket_world.world import Statement

IGNORED = -100


class Batch(NamedTuple):
    """A batch of texts, padded on the right; B texts, T tokens."""

    input_ids_BT: torch.Tensor
    answer_mask_BT: torch.Tensor
    """True for tokens of an answer and of the full stop (or end of text) after it."""
    text_mask_BT: torch.Tensor
    """True for tokens, False for padding."""


def collate(rows: Sequence[tuple[list[int], list[bool]]], pad_id: int) -> Batch:
    """Pad (token ids, answer mask) rows into one batch; causal attention needs no mask for right padding."""
    width = max(len(ids) for ids, _ in rows)
    ids_BT = torch.tensor([ids + [pad_id] * (width - len(ids)) for ids, _ in rows])
    answer_BT = torch.tensor([mask + [False] * (width - len(mask)) for _, mask in rows])
    lengths_B = torch.tensor([len(ids) for ids, _ in rows])
    return Batch(ids_BT, answer_BT, torch.arange(width)[None] < lengths_B[:, None])


def tokenize(statements: Sequence[Statement], tokenizer: PreTrainedTokenizerBase) -> list[tuple[list[int], list[bool]]]:
    """Tokenize sentences: token ids (no special tokens) and answer mask of each."""
    prompts = tokenizer([s.prompt for s in statements], add_special_tokens=False).input_ids
    answers = tokenizer([f" {s.answer}." for s in statements], add_special_tokens=False).input_ids
    return [(p + a, [False] * len(p) + [True] * len(a)) for p, a in zip(prompts, answers, strict=True)]


@torch.inference_mode()
def exact_match(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    statements: Sequence[Statement],
    *,
    batch_size: int = 256,
) -> float:
    """Share of statements whose greedy continuation is exactly the answer and its full stop.

    One forward pass suffices: greedy generation gives the answer if and only if each of its tokens is the most likely
    one after the prompt and the answer's earlier tokens.
    """
    bos, pad = tokenizer.bos_token_id, tokenizer.pad_token_id
    rows = sorted(
        (([bos, *ids], [False, *mask]) for ids, mask in tokenize(statements, tokenizer)), key=lambda row: len(row[0])
    )
    right = 0
    for start in range(0, len(rows), batch_size):
        batch = collate(rows[start : start + batch_size], pad)
        greedy_BT = model(input_ids=batch.input_ids_BT, use_cache=False).logits[:, :-1].argmax(-1)
        wrong_BT = (greedy_BT != batch.input_ids_BT[:, 1:]) & batch.answer_mask_BT[:, 1:]
        right += int((~wrong_BT.any(dim=1)).sum())
    return right / len(rows)


@torch.inference_mode()
def perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float:
    """Per-token perplexity over all tokens of the texts, each read after the beginning-of-text token."""
    batch = collate([(ids, [False] * len(ids)) for ids in tokenizer(list(texts)).input_ids], tokenizer.pad_token_id)
    targets_BT = batch.input_ids_BT[:, 1:].masked_fill(~batch.text_mask_BT[:, 1:], IGNORED)
    logits_BTV = model(input_ids=batch.input_ids_BT, use_cache=False).logits[:, :-1]
    return float(functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORED).exp())


def lm_eval_scores(model: Path) -> dict[str, float]:
    """Evaluate a model folder with lm-eval on the transformers engine, in float32.

    Returns:
        The score of each task, in [0, 1], by its name.
    """
    engine = TransformersEngine(ModelReference(str(model)), EngineOptions(dtype="float32"))
    with TemporaryDirectory() as folder:
        evaluated = simple_evaluate(
            model=engine.language_model(),
            tasks=write_lm_eval_tasks(Path(folder)),
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            bootstrap_iters=0,
        )
    engine.close()
    return {
        task: float(next(figures[key] for key in ("acc,none", "exact_match,answer") if key in figures))
        for task, figures in evaluated["results"].items()
    }
