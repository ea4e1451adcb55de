"""The position of the subject's last token, at which locate-then-edit methods read keys and write values.

The position is found in the token ids that the model reads, by the tokenizer's own record of the characters that each
token covers; never by decoding ids and encoding them again, or by counting the tokens of a prefix. It is the last token
that starts before the subject's end. That covers a subject at the start of the prompt, one that shares a token with the
punctuation after it, and one that occurs twice (its last occurrence as a whole word counts).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.model.anatomy import context_length
from overedit.editing.model.tokenization import MarkedSequence, TokenPair, encode_pairs
from overedit.editing.requests import EditRequest

SLOT = "{}"
"""Placeholder for the prompt in a context template, and for the subject in `KL_TEMPLATE`."""
KL_TEMPLATE = "{} is a"
"""The prompt of the KL term, which holds the next-token distribution at the subject (ROME, arXiv 2202.05262, eq. 4)."""

Templates = tuple[tuple[str, ...], ...]
"""Context templates in groups; keys are averaged within a group, then over the groups."""


class PromptSet(NamedTuple):
    """The token sequences on which one request's value is optimized."""

    prompts: tuple[MarkedSequence, ...]
    """The prompt in every context template; the first is the bare one."""
    kl: MarkedSequence
    """`KL_TEMPLATE` with this subject."""


def subject_end(request: EditRequest) -> int:
    """The end of the subject in the prompt, in characters.

    Raises:
        ValueError: The request has no subject, or it does not occur in the prompt.
    """
    if not (request.subject or "").strip():
        raise ValueError(f"request {request.case_id}: it has no subject, and this method needs one")
    assert request.subject is not None
    subject = re.escape(request.subject.strip())
    found = list(re.finditer(rf"(?<!\w){subject}(?!\w)", request.prompt)) or list(re.finditer(subject, request.prompt))
    if not found:
        raise ValueError(
            f"request {request.case_id}: its subject {request.subject!r} does not occur in its prompt "
            f"{request.prompt!r}; it must occur there letter by letter"
        )
    return found[-1].end()


def check_templates(templates: Templates) -> Templates:
    """Check context templates.

    Raises:
        ValueError: A template does not hold exactly one `{}`, or the first one is not the bare `{}`.
    """
    flat = [template for group in templates for template in group]
    for template in flat:
        if template.count(SLOT) != 1:
            raise ValueError(f"context template {template!r} must hold {SLOT} exactly once")
    if not flat or flat[0] != SLOT or not all(templates):
        raise ValueError(f"the first context template must be {SLOT!r} (the bare prompt), got {flat[:1]}")
    return templates


def encode_prompt_sets(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    templates: Templates,
    *,
    append_eos: bool = False,
) -> list[PromptSet]:
    """Token ids and the subject's position, for every request in every context.

    Args:
        model: Only its context length is read.
        tokenizer: A fast tokenizer, which records the characters that each token covers.
        requests: At least one, each with its subject.
        templates: Context templates; the first is the bare prompt.
        append_eos: Append the end-of-sequence token to each target.

    Raises:
        ValueError: A request whose subject is not in its prompt or that exceeds the model's context, no request, or
            a tokenizer that is not fast.
    """
    if not requests:
        raise ValueError("requests: an edit needs at least one request, got none")
    if not tokenizer.is_fast:
        raise ValueError("tokenizer: a fast tokenizer is needed, which knows the characters that a token covers")
    flat = [template for group in check_templates(templates) for template in group]
    ends = [subject_end(request) for request in requests]
    texts = [template.replace(SLOT, request.prompt) for request in requests for template in flat]
    text_ends = [template.index(SLOT) + end for end in ends for template in flat]
    targets = [request.target_new for request in requests for _ in flat]
    pairs = encode_pairs(tokenizer, list(zip(texts, targets, strict=True)), append_eos=append_eos)
    positions = find_subject_tokens(tokenizer, texts, text_ends, pairs)
    subjects = [(request.subject or "").strip() for request in requests]
    kl_texts = [KL_TEMPLATE.replace(SLOT, subject) for subject in subjects]
    kl_pairs = [TokenPair(pair.prompt, ()) for pair in encode_pairs(tokenizer, [(text, "a") for text in kl_texts])]
    kl_ends = [KL_TEMPLATE.index(SLOT) + len(subject) for subject in subjects]
    kl_positions = find_subject_tokens(tokenizer, kl_texts, kl_ends, kl_pairs)
    marked = (
        MarkedSequence((*pair.prompt, *pair.target[:-1]), position, pair.target)
        for pair, position in zip(pairs, positions, strict=True)
    )
    prompt_sets = [
        PromptSet(tuple(next(marked) for _ in flat), MarkedSequence(pair.prompt, position))
        for pair, position in zip(kl_pairs, kl_positions, strict=True)
    ]
    _check_context(model, requests, prompt_sets)
    return prompt_sets


def find_subject_tokens(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], ends: Sequence[int], pairs: Sequence[TokenPair]
) -> Iterator[int]:
    """Index of the last token of each text that starts before a given character; special tokens do not count."""
    stripped = [text.rstrip(" ") for text in texts]
    spans = tokenizer(stripped, return_offsets_mapping=True)["offset_mapping"]
    for text, end, pair, row in zip(stripped, ends, pairs, spans, strict=True):
        position = max((n for n, (first, last) in enumerate(row) if first < min(end, len(text)) and last > first))
        assert position < len(pair.prompt), (text, position, pair)
        yield position


def _check_context(model: PreTrainedModel, requests: Sequence[EditRequest], prompt_sets: Sequence[PromptSet]) -> None:
    context = context_length(model.config)
    for request, prompt_set in zip(requests, prompt_sets, strict=True):
        longest = max(len(marked.ids) for marked in (*prompt_set.prompts, prompt_set.kl))
        if context is not None and longest > context:
            raise ValueError(
                f"request {request.case_id}: {longest} tokens, context template included, exceed the model's "
                f"context of {context}"
            )
