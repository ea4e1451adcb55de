"""The plain text of `finetune:STEPS`, which is never text on which perplexity is measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from overedit.tasks.data.corpus import open_corpus
from overedit.tasks.durability.options import FinetuneOptions, Operation
from overedit.tasks.pocket_world.shipped import WORLDS

KEY = "after_finetune.corpus"


def tuning_texts(
    operations: Sequence[Operation], options: FinetuneOptions, *, corpus: str | None, num_measured: int | None
) -> dict[str, list[str]]:
    """Read the texts that each `finetune` operation trains on: as many as its steps take, or all if there are fewer.

    Args:
        operations: Those of other kinds need no text.
        options: The corpus, if it is not that of perplexity, and the texts of a step.
        corpus: `perplexity.corpus`.
        num_measured: `perplexity.limit`; None for all texts of the corpus.

    Returns:
        The operation's name -> its texts.

    Raises:
        ValueError: There is no such corpus, or no text in it on which perplexity is not measured.
    """
    name = options.corpus or corpus or ""
    is_measured = name == corpus and name not in WORLDS  # a world has other texts for perplexity
    found = {}
    for operation in operations:
        if operation.kind != "finetune":
            continue
        if is_measured and num_measured is None:
            raise ValueError(
                f"{KEY}: perplexity is measured on all texts of {name}; name another corpus, or set perplexity.limit"
            )
        first = (num_measured or 0) if is_measured else 0
        opened = open_corpus(name, first + int(operation.value) * options.batch_size, key=KEY)
        found[operation.name] = list(islice(opened.texts, first, None))
        if not found[operation.name]:
            raise ValueError(
                f"{KEY}: {name} has no text after the {first:,} on which perplexity is measured; name another corpus, "
                "or lower perplexity.limit"
            )
    return found
