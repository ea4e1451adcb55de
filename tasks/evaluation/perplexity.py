"""Perplexity: how surprised a model is by ordinary text, an early and cheap sign of collapse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from overedit.tasks.data.corpus import open_corpus
from overedit.tasks.engine.base import Engine
from overedit.tasks.evaluation.options import PerplexityOptions


def corpus_texts(options: PerplexityOptions) -> list[str]:
    """The texts of the corpus; none, where no corpus is named. Empty lines and rows are left out.

    Raises:
        ValueError: The file is missing or of another kind, a row has no text, or there is no text at all.
    """
    if options.corpus is None:
        return []
    return list(open_corpus(str(options.corpus), options.limit, key="perplexity.corpus", pocket=_pocket_texts).texts)


def measure_perplexity(engine: Engine, texts: Sequence[str], corpus: str) -> list[dict[str, Any]]:
    """Rows of the table `perplexity`, without the identity columns: one a text.

    The perplexity of the corpus is exp(sum of `nll` / sum of `num_tokens`), each token counting once.

    Args:
        engine: The model asked.
        texts: The texts.
        corpus: Their name.
    """
    return [
        {"corpus": corpus, "text_id": number, "nll": sum(nlls), "num_tokens": len(nlls)}
        for number, nlls in enumerate(engine.token_nlls(texts))
    ]


def _pocket_texts(limit: int | None) -> list[str]:
    from overedit.tasks.pocket_world.corpus import perplexity_texts

    return perplexity_texts(limit or 200)
