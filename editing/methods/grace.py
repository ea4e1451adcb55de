"""GRACE: a codebook beside a module, whose entries take the place of its output for prompts near an edit.

"Aging with GRACE: Lifelong Model Editing with Discrete Key-Value Adaptors" (Hartvigsen et al., NeurIPS 2023, arXiv
2211.11031). An edit's key is the module's input at the last token of its prompt. A prompt whose key lies within the
radius of the nearest entry gets that entry's value as the module's output at that token (section 3, equation 1); every
other prompt has the bits of the unedited model. A value is trained by Adam on the loss of its edit's answer, a mean
over tokens; the entries' radii follow algorithm 1. No weight changes.

Checked against: keys, radii, decisions, values and logits of a published implementation (golden data).

Differences from the reference: two targets are the same if their tokens are (the reference compares the means of the
rows of labels, and from the second entry on with those of another entry); the key's position is the end of each prompt
(there that of the last edit, outside generation); all new entries of a turn are trained together; the random start of
a value depends on the seed and the entry alone.

Shapes: N entries, B prompts, T tokens, I inputs and O outputs of the module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Literal, Self

import torch
from pydantic import Field, field_validator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import (
    EditResult,
    Method,
    MethodConfig,
    Progress,
    Range,
    State,
    TurnSize,
    Work,
    silent,
)
from overedit.editing.methods.locate_then_edit.keys import at_subjects
from overedit.editing.methods.routing.codebook import Codebook, Event
from overedit.editing.methods.routing.codebook_router import CodebookRouter
from overedit.editing.methods.routing.codebook_values import train_values
from overedit.editing.model.anatomy import Anatomy, stores_in_out
from overedit.editing.model.shape import ModelShape
from overedit.editing.model.tokenization import MarkedSequence, encode_requests
from overedit.editing.requests import EditRequest


class Grace(MethodConfig):
    """Settings of GRACE; the defaults are published ones."""

    method: Literal["grace"] = "grace"
    """The method's name."""
    site: str
    """The MLP's second projection of a layer, as `27.down_proj`."""
    radius: float = Field(default=1.0, gt=0)
    """Radius of a new entry, in units of the key (published settings)."""
    learning_rate: float = Field(default=1.0, gt=0)
    """Step size of Adam, constant (published settings)."""
    num_steps: int = Field(default=50, ge=1)
    """Steps of Adam for each value (published settings: 50 to 200)."""
    start: Literal["random", "output"] = "random"
    """What a value starts from: uniform in 0..1 (published settings), or the module's own output."""
    append_eos: bool = False
    """End each target with the end-of-sequence token."""
    max_tokens_per_pass: int = Field(default=8192, ge=1)
    """Tokens per pass when keys are read: bounds memory."""

    @field_validator("site")
    @classmethod
    def _is_projection(cls, site: str) -> str:
        layer, _, part = site.partition(".")
        if part != "down_proj" or not layer.isdecimal():
            raise ValueError(f"{site!r} is no layer's second MLP projection; accepted: a site like 27.down_proj")
        return site

    @property
    def sites(self) -> tuple[str, ...]:
        """The site."""
        return (self.site,)

    def at_site(self, site: str) -> Self:
        """The same settings at another projection."""
        return self.model_validate(self.model_dump() | {"site": site})

    def work(self, shape: ModelShape, turn: TurnSize) -> Work:
        """One pass for the keys, one over all tokens, and the steps: forward and back above the site, answers alone.

        The state is that of a codebook of the turn's edits; it grows by as much in each turn.
        """
        projection, tokens = shape.projections[self.site], turn.num_edits * turn.prompt_tokens
        above = shape.num_layers - projection.layer
        keys = shape.forward(tokens, layers=projection.layer + 1)
        step = 2 * shape.forward(turn.targets, layers=above) + 2 * shape.head(turn.targets)
        entry = 4 * (projection.inputs + projection.outputs) + 8 * turn.target_tokens + 16
        return Work(
            operations=keys + shape.forward(turn.tokens) + (self.num_steps + 1) * step,
            num_bytes=shape.kept_bytes(turn.targets, layers=above) + shape.logits_bytes(turn.targets),
            state_bytes=turn.num_edits * entry,
        )


PRESETS: Mapping[str, Grace] = MappingProxyType(
    {"meta-llama/Llama-2-7b-hf": Grace(site="27.down_proj")}  # published configuration
)
"""Model id -> published settings."""

RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "learning_rate": Range(low=1e-2, high=1e1, log=True),
        "radius": Range(low=1e-2, high=1e2, log=True),
    }
)
"""Setting -> the values among which a search chooses, for models of any size."""


def grace(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    config: Grace,
    state: State,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> EditResult:
    """Add a turn's requests to the codebook, in their order, and train their values.

    Args:
        model: The model to start from; bit-identical on return.
        tokenizer: Its tokenizer.
        requests: The turn's requests.
        config: Settings.
        state: The codebook so far.
        seed: Seed of the values' random start.
        progress: Called with (steps done, total steps).

    Returns:
        No update; the codebook as the state.

    Raises:
        ValueError: A request without tokens or too long for the model, or a layer that the model does not have.
    """
    marked = [
        MarkedSequence((*pair.prompt, *pair.target[:-1]), len(pair.prompt) - 1, pair.target)
        for pair in encode_requests(model, tokenizer, requests, append_eos=config.append_eos)
    ]
    site, mlp = config.site, config.site.replace("down_proj", "mlp")
    read = partial(at_subjects, model, max_tokens=config.max_tokens_per_pass)
    before = Codebook.load(state, *_widths(model, site))
    keys_BI = read(marked, inputs_of=site).float().cpu()
    book, entries, events = before.insert(keys_BI, [each.target for each in marked], config.radius)
    made = [each for each, event in zip(marked, events, strict=True) if event != "expanded"]
    if made and config.start == "output":
        book.values_NO[len(before.targets) :] = read(made, outputs_of=mlp).float().cpu()
    elif made:
        chance = torch.Generator().manual_seed(seed)
        book.values_NO[len(before.targets) :] = torch.rand(len(made), book.values_NO.shape[1], generator=chance)
    losses_2B = train_values(
        model,
        mlp,
        marked,
        book,
        entries,
        learning_rate=config.learning_rate,
        num_steps=config.num_steps,
        progress=progress,
    )
    log: dict[str, float | int | str] = {
        "loss_before": float(losses_2B[0].mean()),
        "loss_after": float(losses_2B[1].mean()),
    }
    return EditResult({}, book.stored(), log | _counts(book, keys_BI, entries, events))


def _counts(book: Codebook, keys_BI: torch.Tensor, entries: Sequence[int], events: Sequence[Event]) -> dict[str, int]:
    """The entries, what the edits did to them, and the edits whose own prompt is outside its entry's radius."""
    inside_B, nearest_B = book.lookup(keys_BI)
    reached_B = inside_B & (nearest_B == torch.tensor(entries))
    counts = Counter(events)
    kinds: tuple[Event, ...] = ("added", "expanded", "split")
    return {"entries": len(book.targets), "dropped": int((~reached_B).sum())} | {kind: counts[kind] for kind in kinds}


def _widths(model: PreTrainedModel, site: str) -> tuple[int, int]:
    """Inputs and outputs of a projection."""
    module = model.get_submodule(Anatomy.of(model).site_module(site))
    first, second = module.get_parameter("weight").shape
    return (first, second) if stores_in_out(module) else (second, first)


def router(model: PreTrainedModel, config: Grace, state: State) -> CodebookRouter:
    """What makes a model answer by a trajectory's codebook."""
    return CodebookRouter(
        Anatomy.of(model).site_module(config.site), Codebook.load(state, *_widths(model, config.site))
    )


METHOD = Method(
    config=Grace,
    function=grace,
    label="GRACE",
    paper="Aging with GRACE: Lifelong Model Editing with Discrete Key-Value Adaptors, arXiv 2211.11031",
    presets=PRESETS,
    ranges=RANGES,
    router=router,
)
