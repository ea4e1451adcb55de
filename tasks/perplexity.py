"""Perplexity: how surprised a model is by ordinary text, an early and cheap sign of collapse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from overedit.tasks.data.corpus import open_corpus
from overedit.tasks.engine import Engine


class PerplexityOptions(BaseModel):
    """The text on which perplexity is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    corpus: Path | None = None
    """A local file: JSON, JSONL or Parquet rows with a field `text` (or `Text`), or a .txt file, one text a line.

    `pocket` is the pocket world's own; `owner/name:configuration` is a dataset on the hub.
    """
    limit: int | None = Field(default=200, ge=1)
    """The first so many texts; None takes all."""


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
    from overedit.tasks.pocket_world import perplexity_texts

    return perplexity_texts(limit or 200)
