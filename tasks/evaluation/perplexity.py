"""Perplexity on ordinary text, an early and cheap sign of collapse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from overedit.tasks.data.corpus import open_corpus
from overedit.tasks.engine.base import Engine
from overedit.tasks.evaluation.options import PerplexityOptions


def corpus_texts(options: PerplexityOptions) -> list[str]:
    """Read the texts of the corpus, without empty ones; an empty list where no corpus is named.

    Raises:
        ValueError: The file is missing or of another kind, a row has no text, or there is no text at all.
    """
    if options.corpus is None:
        return []
    return list(open_corpus(str(options.corpus), options.limit, key="perplexity.corpus", held_out=True).texts)


def measure_perplexity(engine: Engine, texts: Sequence[str], corpus: str) -> list[dict[str, Any]]:
    """Measure each text's NLL: rows of the table `perplexity`, without the identity columns.

    The perplexity of the corpus is exp(sum of `nll` / sum of `num_tokens`), each token counting once.

    Args:
        engine: The running model.
        texts: The texts of the corpus.
        corpus: The name of the corpus.
    """
    return [
        {"corpus": corpus, "text_id": number, "nll": sum(nlls), "num_tokens": len(nlls)}
        for number, nlls in enumerate(engine.token_nlls(texts))
    ]
