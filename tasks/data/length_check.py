"""Checks that requests fit into a model's context, before anything is edited."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from overedit.editing.requests import EditRequest
from overedit.tasks.system.untrusted import shorten

_TEXTS_AT_ONCE = 4096  # per call of the tokenizer


def check_lengths(
    requests: Iterable[EditRequest], tokenizer: Any, max_length: int, *, asked: Container[int] | None = None
) -> None:
    """Check that every prompt, followed by each of its answers, fits into the model's context, with one token to spare.

    Args:
        requests: In the order of editing.
        tokenizer: The model's.
        max_length: The model's context length, in tokens.
        asked: Positions, 1 for the first, of the requests whose probes will be asked; all by default. Of the others
            the model reads only the edit prompt with its new target, so only that is checked.

    Raises:
        ValueError: A prompt is too long; the message names the case, the probe, and both lengths in tokens.
    """
    texts = (
        (request.case_id, kind, text)
        for position, request in enumerate(requests, 1)
        for kind, text in _read_by_model(request, is_asked=asked is None or position in asked)
    )
    while some := list(islice(texts, _TEXTS_AT_ONCE)):
        _check_texts(some, tokenizer, max_length)


def _check_texts(texts: Sequence[tuple[str, str, str]], tokenizer: Any, max_length: int) -> None:
    lengths = [len(ids) for ids in tokenizer([text for _, _, text in texts])["input_ids"]]
    for (case_id, kind, text), length in zip(texts, lengths, strict=True):
        if length + 1 > max_length:
            raise ValueError(
                f"case {case_id!r}: its {kind} prompt with the answer has {length} tokens, "
                f"more than the model's context of {max_length} can hold: {shorten(text)!r}"
            )


def _read_by_model(request: EditRequest, *, is_asked: bool) -> Iterator[tuple[str, str]]:
    yield "edit", _joined(request.prompt, request.target_new)
    if not is_asked:
        return
    targets = (request.target_new, request.target_true)
    yield "edit", _joined(request.prompt, request.target_true)
    for kind, prompts in (("rephrase", request.rephrase_prompts), ("persona", request.persona_prompts)):
        yield from ((kind, _joined(prompt, target)) for prompt in prompts for target in targets)
    for probe in request.locality:
        yield from (("locality", _joined(probe.prompt, target)) for target in (probe.answer, request.target_new))
    for probe in request.portability:
        yield "portability", _joined(probe.prompt, probe.answer)
    yield from (("text", prompt) for prompt in request.text_prompts)


def _joined(prompt: str, answer: str | None) -> str:
    return f"{prompt} {answer}" if answer else prompt
