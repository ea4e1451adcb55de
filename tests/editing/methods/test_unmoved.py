"""The counts of edits that a method could not move, or left out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from overedit.editing.methods.base import EditResult
from overedit.editing.methods.locate_then_edit.subjects import encode_prompt_sets
from overedit.editing.methods.registry import METHODS
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.requests import EditRequest
from tests.support.locate_then_edit import BARE, requests
from tests.support.quick_methods import config_of, covariance_of
from tests.support.teachable_models import byte_tokenizer, some_requests
from tests.support.tiny_models import tiny

LAST = 2
"""The last layer of the tiny models."""


def asked() -> list[EditRequest]:
    """Three requests with their subject inside the prompt, one with it at the end."""
    at_end = EditRequest(case_id="end", prompt="They live in Bo", subject="Bo", target_new="May")
    return [*requests(2), at_end, *requests(3)[2:]]


def edited(name: str, model: PreTrainedModel, requests: list[EditRequest], **more: Any) -> EditResult:
    config = config_of(name).model_copy(update=more)
    sites = {"covariance": covariance_of_sites(name, model, config.sites)} if config.covariance_options else {}
    return METHODS[name].function(model, byte_tokenizer(), requests, config, {}, **sites)


def covariance_of_sites(name: str, model: PreTrainedModel, sites: tuple[str, ...]) -> dict[str, Any]:
    known = covariance_of(name, model)["covariance"]
    moment = next(iter(known.values()))
    return {site: known.get(site, moment) for site in sites}  # any matrix of the size: only the counts are read


@pytest.mark.parametrize("name", ["memit", "emmet", "alphaedit", "rome", "r_rome"])
def test_a_write_at_the_last_layer_moves_only_subjects_at_the_end(name: str) -> None:
    model = tiny("llama")
    assert edited(name, model, asked(), layers=(LAST,)).log["unmoved"] == 3
    assert edited(name, model, asked(), layers=(LAST - 1,)).log["unmoved"] == 0


def test_the_counts_of_batches_are_summed() -> None:
    model = tiny("gpt2")
    whole, batches = (edited("memit", model, asked(), layers=(LAST,), batch_size=size).log for size in (None, 3))
    assert whole["unmoved"] == batches["unmoved"] == 3
    assert batches["value/steps"] != whole["value/steps"] * 2, "means stay means"


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_what_counts_as_unmoved_cannot_change_a_logit_of_the_answer(family: str) -> None:
    """The reason: the last layer's output at the subject is shifted, and the answer's logits are the same bits."""
    model, anatomy = tiny(family), Anatomy.of(tiny(family))
    module = model.get_submodule(anatomy.site_module(f"{LAST}.layer"))
    for prompt_set in encode_prompt_sets(model, byte_tokenizer(), asked(), BARE):
        (marked,) = prompt_set.prompts
        first = len(marked.ids) - len(marked.target)  # the position at which the answer's first token is predicted

        def shift(_: Any, __: Any, output: Any, at: int = marked.position) -> Any:
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            hidden[:, at] += 1.0
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        with torch.no_grad():
            before = model(torch.tensor([marked.ids])).logits[0, first:]
            handle = module.register_forward_hook(shift)
            after = model(torch.tensor([marked.ids])).logits[0, first:]
            handle.remove()
        assert torch.equal(before, after) == (marked.position < first)


def test_a_target_that_does_not_change_counts_as_unmoved_or_as_dropped() -> None:
    model, values = tiny("llama"), config_of("memit").values  # type: ignore[attr-defined]
    one_step = values.model_copy(update={"num_steps": 1})  # a single evaluation, and no update
    log = edited("memit", model, requests(), layers=(0,), values=one_step).log
    assert (log["unmoved"], log["dropped"]) == (4, 0)
    known = values.model_copy(update={"stop_below": 1e9})
    log = edited("memit", model, requests(), layers=(0,), values=known).log
    assert (log["unmoved"], log["dropped"]) == (0, 4)
    log = edited("memit", model, asked(), layers=(LAST,), values=known).log
    assert (log["unmoved"], log["dropped"]) == (3, 1), "an edit counts once"


@pytest.mark.parametrize("name", ["ft_m", "ft_l"])
def test_requests_that_are_known_already_are_dropped(name: str) -> None:
    model, some = tiny("llama"), some_requests(3)
    assert edited(name, model, some, stop_below=1e9).log["dropped"] == 3
    assert edited(name, model, some, stop_below=1e-9).log["dropped"] == 0


def test_locft_drops_what_is_in_skipped_batches_alone() -> None:
    model, some = tiny("llama"), some_requests(6)
    assert edited("locft_bf", model, some, skip_batch_below=1e9).log["dropped"] == 6
    assert edited("locft_bf", model, some).log["dropped"] == 0
    continued = edited("locft_bf", model, some, skip_batch_below=1e9, schedule="continue")
    assert continued.log["dropped"] == 0, "earlier turns may have trained them"
