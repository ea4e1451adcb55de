"""A few rows of the table `perplexity`, all of one partition."""

from __future__ import annotations

from typing import Any

PARTITION = {"run": "demo", "trajectory": "locft-bf", "order_seed": 0, "edit_count": 10}
IDENTITY = PARTITION | {"model": "pocket", "method": "locft_bf", "dataset": "world"}


def rows(number: int, **values: Any) -> list[dict[str, Any]]:
    return [
        IDENTITY | {"corpus": "held out", "text_id": i, "nll": 1.5 * i, "num_tokens": 4} | values for i in range(number)
    ]
