"""What exceeds the memory is halved, and gives the same numbers: for every kind of pass that editing makes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from overedit.editing.methods.fine_tuning.tuner import SiteTuning, tuning
from overedit.editing.methods.gradients.answer_gradients import trace_answers
from overedit.editing.methods.locate_then_edit.covariance import second_moments
from overedit.editing.methods.locate_then_edit.keys import at_subjects
from overedit.editing.model import memory
from overedit.editing.model.memory import OomHalver, says_out_of_memory
from overedit.editing.model.partial_forward import tree_forward
from overedit.editing.model.partial_forward.tree_forward import TreeForward
from overedit.editing.model.tokenization import MarkedSequence
from tests.support.answer_pairs import PAIRS, WEIGHTS, sites
from tests.support.teachable_models import byte_tokenizer, samples_of, teachable
from tests.support.tiny_models import tiny

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 400 bytes"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate 400"),
    MemoryError(),
]


@contextmanager
def memory_for(
    model: PreTrainedModel, num_tokens: int, error: BaseException = ERRORS[0]
) -> Iterator[tuple[list[int], list[int]]]:
    """Let forward passes of more tokens fail; tells the sizes of those that did not, and of those that did."""
    fitted: list[int] = []
    failed: list[int] = []

    def check(_: Any, arguments: Any, named: dict[str, Any]) -> None:
        entering = named.get("input_ids")
        size = (named["inputs_embeds"][..., 0] if entering is None else entering).numel()
        (fitted if size <= num_tokens else failed).append(size)
        if size > num_tokens:
            raise error

    handle = model.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield fitted, failed
    finally:
        handle.remove()


# the helper


def run(halving: OomHalver, groups: Sequence[Sequence[int]], room: int, error: BaseException) -> list[list[int]]:
    def compute(part: Sequence[int]) -> int:
        if sum(part) > room:
            raise error
        return sum(part)

    done = list(halving.run(groups, compute, size=sum))
    assert all(found == sum(part) for part, found in done)
    return [list(part) for part, _ in done]


@pytest.mark.parametrize("error", ERRORS)
def test_parts_keep_their_order_and_later_groups_are_cut_at_once(error: BaseException) -> None:
    halving = OomHalver()
    assert run(halving, [[1, 1], [2, 2, 2, 2], [4, 4], [3, 1]], 5, error) == [[1, 1], [2, 2], [2, 2], [4], [4], [3, 1]]
    assert halving.most == 4


def test_halved_as_often_as_needed(caplog: pytest.LogCaptureFixture) -> None:
    halving = OomHalver()
    with caplog.at_level(logging.WARNING):
        assert run(halving, [[1] * 16], 2, ERRORS[0]) == [[1, 1]] * 8
    assert "16 at once exceed the memory: from now on at most 8 tokens together" in caplog.text
    with pytest.raises(torch.OutOfMemoryError):
        run(halving, [[1, 1], [3]], 2, ERRORS[0])


def test_another_error_is_not_taken_for_too_little_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        run(OomHalver(), [[1, 2]], 2, RuntimeError("shapes do not match"))


def test_torch_itself_says_on_a_processor_that_memory_ran_out() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**14)
    assert says_out_of_memory(caught.value)


# the passes


@pytest.mark.parametrize("error", ERRORS[:2])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_traced_answers(family: str, error: BaseException) -> None:
    model = tiny(family, dtype=torch.float64)
    names = sites(model)

    def trace() -> Any:
        return trace_answers(model, PAIRS, names, WEIGHTS, max_tokens_per_pass=1000, pack_tokens=96)

    whole = trace()
    with memory_for(model, 5, error) as (fitted, failed):
        rows = trace()
    assert failed and len(fitted) >= 2
    torch.testing.assert_close(rows.losses, whole.losses, rtol=1e-6, atol=0)  # kept in float32
    for name in names:
        for seen, expected in zip(rows.modules[name], whole.modules[name], strict=True):
            torch.testing.assert_close(seen, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("keep", [True, False], ids=["prefix", "no prefix"])
@pytest.mark.parametrize("average", ["sample", "token"])
def test_a_step_of_fine_tuning(average: Any, keep: bool) -> None:
    model = teachable("llama", dtype=torch.float64)
    samples = samples_of(model)
    config = SiteTuning(site="1.down_proj", frozen_prefix=keep)

    def step() -> tuple[float, dict[str, torch.Tensor]]:
        with tuning(model, samples, config) as tuner:
            loss = tuner.step(range(len(samples)), average=average)
            return loss, {name: value.grad.clone() for name, value in tuner.values.items() if value.grad is not None}

    loss, gradients = step()
    with memory_for(model, 60) as (fitted, failed):
        halved_loss, halved = step()
    assert failed and len(fitted) >= 3
    assert halved_loss == pytest.approx(loss, rel=1e-6)
    assert halved.keys() == gradients.keys() and gradients
    for name, gradient in gradients.items():  # a float32 sum
        torch.testing.assert_close(halved[name], gradient, rtol=1e-5, atol=1e-7)


def test_what_was_found_to_fit_is_kept_for_the_next_step() -> None:
    model = teachable("llama")
    samples = samples_of(model)
    with tuning(model, samples, SiteTuning(site="1.down_proj")) as tuner, memory_for(model, 60) as (_, failed):
        tuner.step(range(len(samples)))
        found = len(failed)
        tuner.step(range(len(samples)))
        assert found == len(failed) > 0


def test_the_covariance_of_keys() -> None:
    model, tokenizer = tiny("llama", dtype=torch.float64), byte_tokenizer()
    texts = [f"{'word ' * (i % 4)}number {i}" for i in range(12)]

    def moments() -> Any:
        return second_moments(model, tokenizer, texts, ["0.down_proj", "1.up_proj"], max_length=30)

    whole = moments()
    with memory_for(model, 100) as (fitted, failed):
        halved = moments()
    assert failed and len(fitted) >= 3
    for site, moment in whole.items():
        torch.testing.assert_close(halved[site].matrix_II, moment.matrix_II, rtol=1e-12, atol=1e-14)
        assert halved[site].num_tokens == moment.num_tokens
        assert halved[site].convergence == pytest.approx(moment.convergence, rel=1e-12)


def test_rows_at_subjects() -> None:
    model = tiny("llama", dtype=torch.float64)
    sequences = [MarkedSequence(tuple(range(5, 9 + 2 * i)), 2 + 2 * i, ()) for i in range(6)]

    def rows() -> torch.Tensor:
        return at_subjects(model, sequences, inputs_of="1.down_proj", max_tokens=1000)

    whole = rows()
    with memory_for(model, 26) as (fitted, failed):
        halved = rows()
    assert failed and len(fitted) >= 3 and all(later <= failed[0] for _, later in pairwise(fitted))
    torch.testing.assert_close(halved, whole, rtol=1e-12, atol=1e-14)


def test_rows_of_a_prefix_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of passes that start at inputs of a layer which were kept."""
    model = tiny("llama", dtype=torch.float64)
    sequences = [(first, *range(5, 9 + 2 * first)) for first in range(6)]

    def rows() -> list[torch.Tensor]:
        forward = TreeForward(model, sequences, max_tokens=1000)
        return [forward.read(f"{layer}.down_proj", entering=True, keep=True) for layer in (1, 2)]

    monkeypatch.setattr(tree_forward, "_PACK_TOKENS", 15)
    whole = rows()
    with memory_for(model, 32) as (fitted, failed):
        halved = rows()
    assert failed and len(fitted) >= 8
    torch.testing.assert_close(halved, whole, rtol=1e-12, atol=1e-14)


def test_one_sequence_that_does_not_fit_is_an_error_and_the_model_is_as_before() -> None:
    model = tiny("llama")
    flags = [parameter.requires_grad for parameter in model.parameters()]
    with memory_for(model, 3), pytest.raises(torch.OutOfMemoryError):
        trace_answers(model, PAIRS, sites(model), WEIGHTS, max_tokens_per_pass=1000, pack_tokens=96)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert not any("forward" in module.__dict__ for module in model.modules())


BLOCK = 64 << 20


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU's memory is counted")
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel keeps one peak a process")
def test_a_peak_before_the_stretch_does_not_count() -> None:
    memory.reset_peak()
    before = memory.peak_bytes()
    block = bytearray(b"x") * BLOCK
    high = memory.peak_bytes()
    assert high - before > BLOCK // 2
    del block
    assert memory.peak_bytes() >= high - (1 << 20), "a peak stays"
    memory.reset_peak()
    assert memory.peak_bytes() < high - BLOCK // 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU's memory is counted")
def test_without_the_kernels_files_it_is_the_process_own_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_PROCESS", tmp_path / "none")
    memory.reset_peak()
    assert memory.peak_bytes() > 1 << 20
