"""What a locate-then-edit method takes: operations and bytes of values, keys, and solves.

Shapes: N edits, I inputs and O outputs of a projection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from overedit.editing.methods.base import MethodConfig, TurnSize, Work
from overedit.editing.methods.locate_then_edit.contexts import ContextOptions
from overedit.editing.methods.locate_then_edit.keys import KEPT_PASSES
from overedit.editing.methods.locate_then_edit.value_options import ValueOptions
from overedit.editing.model.shape import ModelShape, SiteShape

_KL_TOKENS = 8
"""Tokens of the prompt of the KL term, subject included."""
_CHOSEN_TOKENS = 1024
"""Tokens of a pass over values on a CPU, where the settings leave it open; a GPU takes more, if its memory is free."""
_JOIN_TOKENS = 2
"""Tokens of a sampled context beside those sampled: its start, and the full stop."""


class CountedWork(MethodConfig):
    """Counts the work from the settings that all locate-then-edit methods share."""

    needs_subject: ClassVar[bool] = True

    matrices_per_site: ClassVar[int] = 2
    """Matrices of I x I in float64 that are kept for each site: C0 and its Cholesky factor."""
    state_matrices: ClassVar[int] = 0
    """Matrices of I x I in float64 in the state, for each site."""

    if TYPE_CHECKING:  # fields of the subclass
        layers: tuple[int, ...]
        distribution: str
        batch_size: int | None
        values: ValueOptions
        contexts: ContextOptions
        max_tokens_per_pass: int

    def solve_operations(self, site: SiteShape, num_edits: int) -> float:
        """Operations of one site's solve and its diagnostics, float64 counted twice: 12 I^2 N + 4 I N^2."""
        return 12.0 * site.inputs**2 * num_edits + 4.0 * site.inputs * num_edits**2

    def setup_operations(self, site: SiteShape) -> float:
        """Operations of factorizing one site's C0 by Cholesky, I^3 / 3 in float64, which count twice."""
        return site.inputs**3 / 1.5

    def work(self, shape: ModelShape, turn: TurnSize) -> Work:
        """All steps of all values; keys of each layer and the outputs at the last; and the solves.

        A value: one pass over all contexts, then in each step forward and back from the last edited layer on, for the
        tokens from the subject's last one on (half of the prompt). Keys: each layer up to the last edited one, and each
        edited layer once more, for the tokens of a prompt up to the subject in every context, and for those of the
        contexts once a batch. The outputs at the last layer: bare prompts, from the edited layer on. Bytes: C0 with its
        factor for each site in float64, a copy of the edited weights, and the largest of the activations kept for the
        values, of a pass over keys with the inputs of a layer for all of them, and of a write in float32.
        """
        num_contexts, context_tokens = _contexts(self.contexts)
        prompts = num_contexts * turn.prompt_tokens + context_tokens
        sites = [shape.projections[site] for site in self.sites]
        last, edits = self.layers[-1], turn.num_edits
        num_values = len(self.layers) if self.distribution == "own" else 1
        suffix = num_contexts * (turn.prompt_tokens / 2 + turn.target_tokens) + _KL_TOKENS
        reads = num_contexts * turn.target_tokens + 1
        step = 2 * shape.forward(suffix, layers=shape.num_layers - last) + 2 * shape.head(reads)
        values = shape.forward(prompts + num_contexts * turn.target_tokens) + self.values.num_steps * step
        together = min(self.batch_size or edits, edits)
        num_batches = -(-edits // together)
        # with values of its own, a layer has keys of its own
        key_layers = last + len(sites) if num_values == 1 else sum(s.layer + 1 for s in sites)
        keys = shape.forward(num_contexts * turn.prompt_tokens / 2, layers=key_layers)
        keys += shape.forward(turn.prompt_tokens / 2, layers=sum(last + 1 - s.layer for s in sites))
        templates = num_batches * shape.forward(context_tokens, layers=key_layers)
        solves = sum(self.solve_operations(s, together) for s in sites) * num_batches
        drawn = len(self.contexts.starts) if self.contexts.templates is None else 0
        sampling = drawn * sum(shape.forward(n + 1) + shape.head(n + 1) for n in range(self.contexts.num_tokens))
        squares = 8 * sum(s.inputs**2 for s in sites)
        one = shape.kept_bytes(suffix, layers=shape.num_layers - last) + shape.logits_bytes(reads)
        kept = max(1.0, min(together * suffix, self.values.max_tokens_per_pass or _CHOSEN_TOKENS) / suffix) * one
        read = together * num_contexts * turn.prompt_tokens / 2 + context_tokens
        inputs = 2 * shape.hidden * shape.itemsize * min(read, KEPT_PASSES * self.max_tokens_per_pass)
        reading = shape.passing_bytes(min(read, self.max_tokens_per_pass)) + inputs
        write = 8 * shape.largest(self.sites) + 16 * together * max(s.inputs + s.outputs for s in sites)
        return Work(
            operations=edits * (num_values * values + keys) + templates + solves,
            num_bytes=self.matrices_per_site * squares
            + self.state_matrices * squares
            + shape.values(self.sites) * shape.itemsize
            + max(kept, reading, write),
            state_bytes=self.state_matrices * squares,
            setup_operations=sampling + sum(self.setup_operations(s) for s in sites),
        )


def _contexts(options: ContextOptions) -> tuple[int, int]:
    """The number of contexts, the bare prompt included, and the tokens that they put in front, all together."""
    if options.templates is not None:
        flat = [template for group in options.templates for template in group]
        return len(flat), sum(len(template.split()) for template in flat) - len(flat)
    return 1 + len(options.starts), len(options.starts) * (options.num_tokens + _JOIN_TOKENS)
