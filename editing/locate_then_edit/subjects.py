"""Where the subject's last token is: the place at which locate-then-edit methods read keys and write values.

The place is found in the token ids that the model reads (by the tokenizer's own record of which characters a token
covers), never by decoding ids and encoding them again or by counting the tokens of a prefix. It is the last token that
begins before the subject's end, so a subject that stands first, that shares a token with the punctuation behind it, or
that occurs twice (then its last occurrence as a whole word) has a place like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.model.anatomy import context_length
from overedit.editing.model.tokenization import Placed, TokenPair, encode_pairs
from overedit.editing.requests import EditRequest

SLOT = "{}"
"""Stands for the prompt in a context template, and for the subject in `KL_TEMPLATE`."""
KL_TEMPLATE = "{} is a"
"""The prompt at whose subject the next-token distribution is held (ROME, arXiv 2202.05262, eq. 4)."""

Templates = tuple[tuple[str, ...], ...]
"""Context templates in groups; keys are averaged within a group, then over the groups."""


class Rewriting(NamedTuple):
    """The sequences in which one request's value is optimized."""

    prompts: tuple[Placed, ...]
    """The prompt in every context template; the first is the bare one."""
    kl: Placed
    """`KL_TEMPLATE`, with this subject."""


def subject_end(request: EditRequest) -> int:
    """Where the subject ends in the prompt, in characters.

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
            f"{request.prompt!r}; it must stand there letter by letter"
        )
    return found[-1].end()


def check_templates(templates: Templates) -> Templates:
    """Check context templates.

    Raises:
        ValueError: One without exactly one `{}`, or the first is not the bare `{}`.
    """
    flat = [template for group in templates for template in group]
    for template in flat:
        if template.count(SLOT) != 1:
            raise ValueError(f"context template {template!r} must hold {SLOT} exactly once")
    if not flat or flat[0] != SLOT or not all(templates):
        raise ValueError(f"the first context template must be {SLOT!r} (the bare prompt), got {flat[:1]}")
    return templates


def encode_rewritings(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    templates: Templates,
    *,
    append_eos: bool = False,
) -> list[Rewriting]:
    """Token ids and the subject's place, for every request in every context.

    Args:
        model: Only its context length is read.
        tokenizer: A fast one: it must know which characters a token covers.
        requests: At least one, each with its subject.
        templates: Context templates; the first is the bare prompt.
        append_eos: Put the end-of-sequence token behind each target.

    Raises:
        ValueError: A request without its subject in the prompt, one that does not fit into the context, no request, or
            a tokenizer that does not know which characters a token covers.
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
    places = find_places(tokenizer, texts, text_ends, pairs)
    subjects = [(request.subject or "").strip() for request in requests]
    kl_texts = [KL_TEMPLATE.replace(SLOT, subject) for subject in subjects]
    kl_pairs = [TokenPair(pair.prompt, ()) for pair in encode_pairs(tokenizer, [(text, "a") for text in kl_texts])]
    kl_ends = [KL_TEMPLATE.index(SLOT) + len(subject) for subject in subjects]
    kl_places = find_places(tokenizer, kl_texts, kl_ends, kl_pairs)
    placed = (
        Placed((*pair.prompt, *pair.target[:-1]), place, pair.target) for pair, place in zip(pairs, places, strict=True)
    )
    rewritings = [
        Rewriting(tuple(next(placed) for _ in flat), Placed(pair.prompt, place))
        for pair, place in zip(kl_pairs, kl_places, strict=True)
    ]
    _check_context(model, requests, rewritings)
    return rewritings


def find_places(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], ends: Sequence[int], pairs: Sequence[TokenPair]
) -> Iterator[int]:
    """The last token of each text that begins before a character and covers any; special tokens cover none."""
    stripped = [text.rstrip(" ") for text in texts]
    spans = tokenizer(stripped, return_offsets_mapping=True)["offset_mapping"]
    for text, end, pair, row in zip(stripped, ends, pairs, spans, strict=True):
        place = max((n for n, (first, last) in enumerate(row) if first < min(end, len(text)) and last > first))
        assert place < len(pair.prompt), (text, place, pair)
        yield place


def _check_context(model: PreTrainedModel, requests: Sequence[EditRequest], rewritings: Sequence[Rewriting]) -> None:
    context = context_length(model.config)
    for request, rewriting in zip(requests, rewritings, strict=True):
        longest = max(len(placed.ids) for placed in (*rewriting.prompts, rewriting.kl))
        if context is not None and longest > context:
            raise ValueError(
                f"request {request.case_id}: {longest} tokens, context template included, exceed the model's "
                f"context of {context}"
            )
