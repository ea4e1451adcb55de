"""Answers by a codebook.

Shapes: N entries, B prompts, T tokens, I inputs and O outputs of the module.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from overedit.editing.methods.routing.codebook import Codebook
from overedit.editing.model.routing import Exchange


class CodebookRouter(NamedTuple):
    """Gives the values of a codebook to the prompts inside its radii."""

    module: str
    book: Codebook

    def start(self, ends_B: torch.Tensor) -> Exchange:
        """Begin with new prompts; only their last token's output is exchanged."""
        passes = 0

        def exchange(hidden_BTI: torch.Tensor, output_BTO: torch.Tensor) -> torch.Tensor:
            nonlocal passes
            passes += 1
            rows_B = (ends_B >= 0).nonzero()[:, 0]
            if passes > 1 or not len(rows_B) or not self.book.targets:
                return output_BTO
            inside_B, nearest_B = self.book.lookup(hidden_BTI[rows_B, ends_B[rows_B]])
            chosen = rows_B[inside_B]
            exchanged_BTO = output_BTO.clone()
            values_BO = self.book.values_NO[nearest_B[inside_B].cpu()]
            exchanged_BTO[chosen, ends_B[chosen]] = values_BO.to(output_BTO)
            return exchanged_BTO

        return exchange
