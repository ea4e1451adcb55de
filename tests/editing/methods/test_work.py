"""What a method says that a call takes: against what is dispatched, and against the state that it returns."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from overedit.editing.methods.base import MethodConfig, TurnSize
from overedit.editing.methods.locft_bf import LocftBf
from overedit.editing.methods.registry import METHODS
from overedit.editing.model.shape import ModelShape
from overedit.editing.model.tokenization import encode_requests
from tests.benchmarks.counting import Counted
from tests.support.quick_methods import config_of, covariance_of
from tests.support.teachable_models import byte_tokenizer, some_requests
from tests.support.tiny_models import tiny

NUM_EDITS = 6


def turn_of(config: MethodConfig) -> TurnSize:
    """The tokens of the requests, as they are encoded."""
    append_eos = bool(getattr(config, "append_eos", False))
    pairs = encode_requests(tiny("llama"), byte_tokenizer(), some_requests(NUM_EDITS), append_eos=append_eos)
    prompt, target = (sum(map(len, ids)) / NUM_EDITS for ids in zip(*pairs, strict=True))
    return TurnSize(NUM_EDITS, prompt, target)


def bases_of(state: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [tensor for key, tensor in state.items() if key.endswith("null_basis")]


@pytest.mark.parametrize("name", METHODS)
def test_counted_operations_and_the_state(name: str) -> None:
    """A tiny model's vocabulary and padding leave a factor of two; it is an upper bound with early stopping."""
    model, config = tiny("llama"), config_of(name)
    arguments = covariance_of(name, model)
    with Counted() as counted:
        result = METHODS[name].function(model, byte_tokenizer(), some_requests(NUM_EDITS), config, {}, **arguments)
    work = config.work(ModelShape.of(model, itemsize=4), turn_of(config))
    dispatched = sum(counted.flop.values())
    assert dispatched / 2 < work.operations + work.setup_operations < 3 * dispatched
    tensors = {key: tensor for key, tensor in result.state.items() if key != "context_templates"}
    stored = sum(tensor.nbytes for tensor in tensors.values())
    if name == "betaedit":  # the null space has fewer dimensions than there are inputs
        stored += sum(8 * basis.shape[0] * (basis.shape[0] - basis.shape[1]) for basis in bases_of(tensors))
    assert stored == pytest.approx(work.state_bytes, abs=16)


@pytest.mark.parametrize("name", METHODS)
def test_more_edits_take_more(name: str) -> None:
    shape, config = ModelShape.of(tiny("llama"), itemsize=4), config_of(name)
    few, many = (config.work(shape, TurnSize(number, 8, 3)) for number in (1, 50))
    assert many.operations > 10 * few.operations
    assert many.num_bytes >= few.num_bytes > 0


def test_epochs_and_passes_are_counted() -> None:
    shape, turn = ModelShape.of(tiny("llama"), itemsize=4), TurnSize(10, 8, 3)
    once, thrice = (LocftBf(site="1.down_proj", epochs=epochs).work(shape, turn) for epochs in (1, 3))
    prefix = shape.forward(turn.tokens, layers=1)
    assert thrice.operations - prefix == pytest.approx(3 * (once.operations - prefix))
    again = LocftBf(site="1.down_proj", epochs=3, frozen_prefix=False).work(shape, turn)
    assert again.operations == pytest.approx(thrice.operations + 2 * prefix)


class Silent(MethodConfig):
    """A method that does not say what it takes."""

    method: Literal["silent"] = "silent"
    sites: tuple[str, ...] = ("1.down_proj",)


def test_a_method_that_does_not_say_gets_one_step_of_training() -> None:
    shape, turn = ModelShape.of(tiny("llama"), itemsize=4), TurnSize(10, 8, 3)
    work = Silent().work(shape, turn)
    weights = 32 * 48
    assert work.operations == 2 * shape.forward(110) + 2 * shape.head(30) + 2 * weights * 110
    assert work.num_bytes > 16 * weights
    assert (work.state_bytes, work.setup_operations) == (0, 0)
