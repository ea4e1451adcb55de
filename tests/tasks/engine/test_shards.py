"""Which rows and columns of a weight a rank holds, against torch's own chunks, and against vLLM's own modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from overedit.tasks.engine.vllm_comparison import HELD, OTHER_VALUES, Comparison
from overedit.tasks.engine.vllm_environment import starting_vllm
from overedit.tasks.engine.vllm_shards import (
    COLUMNS,
    Block,
    UnknownLayoutError,
    column_parallel,
    merged,
    query_key_value,
    row_parallel,
)


def numbered(*shape: int) -> torch.Tensor:
    """A tensor without two equal entries."""
    return torch.randperm(int(torch.tensor(shape).prod())).reshape(shape).float()


def shard(whole: torch.Tensor, blocks: tuple[Block, ...]) -> torch.Tensor:
    """What a rank holds of one tensor, in the order of its places."""
    parts = [whole.narrow(b.dim, b.start, b.size) for b in sorted(blocks, key=lambda block: block.place)]
    return torch.cat(parts, dim=blocks[0].dim)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_rows_and_columns_are_torchs_chunks(ranks: int) -> None:
    weight = numbered(8, 12)
    for rank in range(ranks):
        assert torch.equal(shard(weight, column_parallel(8, rank, ranks)), weight.chunk(ranks, dim=0)[rank])
        assert torch.equal(shard(weight, row_parallel(12, rank, ranks)), weight.chunk(ranks, dim=1)[rank])
    assert {block.dim for block in row_parallel(12, 0, ranks)} == {COLUMNS}


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_stacked_weights_are_split_one_by_one(ranks: int) -> None:
    gate, up = numbered(8, 3), numbered(12, 3)
    for rank in range(ranks):
        chunks = [weight.chunk(ranks, dim=0)[rank] for weight in (gate, up)]
        first, second = (merged((8, 12), index, rank, ranks) for index in (0, 1))
        assert torch.equal(shard(gate, first), chunks[0]) and torch.equal(shard(up, second), chunks[1])
        assert (first[0].place, second[0].place) == (0, len(chunks[0])), "its rows of gate, then its rows of up"
        together = merged((8, 12), None, rank, ranks)
        assert torch.equal(shard(torch.cat([gate, up]), together), torch.cat(chunks)), "one tensor on disk"
        assert together == merged((8, 12), (0, 1), rank, ranks)


@pytest.mark.parametrize(("ranks", "key_values"), [(1, 2), (2, 2), (4, 4), (4, 2), (8, 2), (8, 1)])
def test_heads_are_split_and_too_few_key_value_heads_are_repeated(ranks: int, key_values: int) -> None:
    queries, size, value_size = 8, 3, 2
    weights = {"q": numbered(queries * size, 5), "k": numbered(key_values * size, 5), "v": numbered(key_values * 2, 5)}
    copies = max(1, ranks // key_values)

    def chunk(part: str, rank: int) -> torch.Tensor:
        if part == "q":
            return weights[part].chunk(ranks)[rank]
        heads = weights[part].unflatten(0, (key_values, -1)).repeat_interleave(copies, dim=0)
        return heads.chunk(ranks)[rank].flatten(0, 1)

    for rank in range(ranks):
        held, place = [], 0
        for part in "qkv":
            blocks = query_key_value((queries, key_values), (size, value_size), part, rank, ranks)
            assert torch.equal(shard(weights[part], blocks), chunk(part, rank)), (rank, part)
            assert blocks[0].place == place
            place += blocks[0].size
            held.append(chunk(part, rank))
        fused = query_key_value((queries, key_values), (size, value_size), None, rank, ranks)
        assert torch.equal(shard(torch.cat([*weights.values()]), fused), torch.cat(held)), "one tensor on disk"


def test_what_cannot_be_shared_is_not_guessed() -> None:
    for split in (
        lambda: column_parallel(7, 0, 2),
        lambda: row_parallel(7, 0, 2),
        lambda: merged((4, 5), 0, 0, 2),
        lambda: query_key_value((6, 3), (4, 4), "k", 0, 2),
    ):
        with pytest.raises(UnknownLayoutError, match="cannot be shared by 2 ranks"):
            split()


# vLLM's own modules, each filled by its own loader as the rank that it takes itself for


@pytest.fixture
def as_rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], Any]]:
    """Make vLLM's modules believe that they are on a rank of several."""
    pytest.importorskip("vllm")
    with starting_vllm():
        from vllm.config import VllmConfig, set_current_vllm_config
        from vllm.model_executor import parameter
        from vllm.model_executor.layers import linear, vocab_parallel_embedding

    def pretend(rank: int, ranks: int) -> Any:
        for module in (linear, vocab_parallel_embedding, parameter):
            monkeypatch.setattr(module, "get_tensor_model_parallel_rank", lambda: rank)
            monkeypatch.setattr(module, "get_tensor_model_parallel_world_size", lambda: ranks)
        return linear, vocab_parallel_embedding

    with set_current_vllm_config(VllmConfig()):
        yield pretend


def verdict(module: nn.Module, tensor: torch.Tensor, part: Any = None, *, kind: str = "weight", **more: Any) -> str:
    return Comparison().verdict(module, kind, part, tensor, **({"in_out": False} | more))


def permuted(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """The same values in other places."""
    return tensor.roll(1, dim)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_vllms_modules_hold_their_parts_and_a_permuted_part_is_found_out(
    rank: int, as_rank: Callable[[int, int], Any]
) -> None:
    linear, vocabulary = as_rank(rank, 2)
    column = linear.ColumnParallelLinear(6, 8, bias=True)
    row = linear.RowParallelLinear(6, 8, bias=True)
    whole = linear.ReplicatedLinear(6, 8, bias=True)
    for module, dim in ((column, 0), (row, 1), (whole, 0)):
        weight, bias = numbered(8, 6), numbered(8)
        module.weight.weight_loader(module.weight, weight)
        module.bias.weight_loader(module.bias, bias)
        assert verdict(module, weight) == verdict(module, bias, kind="bias") == HELD
        assert verdict(module, weight.T.contiguous(), in_out=True) == HELD, "as GPT-2 stores it"
        assert verdict(module, weight[:, :5]) not in (HELD, OTHER_VALUES), "it has another shape"
        module.weight.data = permuted(module.weight.data, dim)
        assert verdict(module, weight) == OTHER_VALUES, "the same values, elsewhere"
        module.bias.data[-1] += 1
        assert verdict(module, bias, kind="bias") == OTHER_VALUES

    qkv = linear.QKVParallelLinear(6, 2, total_num_heads=4, total_num_kv_heads=1, bias=False)
    gate_up = linear.MergedColumnParallelLinear(6, [8, 8], bias=False)
    parts = {"q": numbered(8, 6), "k": numbered(2, 6), "v": numbered(2, 6), 0: numbered(8, 6), 1: numbered(8, 6)}
    for part, weight in parts.items():
        module = gate_up if isinstance(part, int) else qkv
        module.weight.weight_loader(module.weight, weight, part)
    for part, weight in parts.items():
        assert verdict(gate_up if isinstance(part, int) else qkv, weight, part) == HELD
    gate_up.weight.data = permuted(gate_up.weight.data, 1)
    assert verdict(gate_up, parts[0], 0) == verdict(gate_up, parts[1], 1) == OTHER_VALUES

    for embedding in (vocabulary.VocabParallelEmbedding(100, 4), vocabulary.ParallelLMHead(100, 4)):
        table = numbered(100, 4)
        embedding.weight.weight_loader(embedding.weight, table)
        assert verdict(embedding, table) == HELD
        embedding.weight.data = permuted(embedding.weight.data, 0)
        assert verdict(embedding, table) == OTHER_VALUES


@pytest.mark.slow
def test_an_unknown_layout_is_never_verified(as_rank: Callable[[int, int], Any]) -> None:
    linear, _ = as_rank(0, 1)

    class OwnLoader(linear.ColumnParallelLinear):  # type: ignore[misc, name-defined]
        def weight_loader_v2(self, parameter: Any, weight: torch.Tensor) -> None:
            parameter.data.copy_(weight.flip(0))

    own, weight = OwnLoader(6, 8, bias=False), numbered(8, 6)
    own.weight.weight_loader(own.weight, weight)
    assert "a way of its own" in verdict(own, weight)
    plain = linear.ColumnParallelLinear(6, 8, bias=False)
    plain.weight.weight_loader(plain.weight, weight)
    assert verdict(plain, weight) == HELD
    assert "part named 'q'" in verdict(plain, weight, "q")
    plain.quant_method = object()
    assert "quantized" in verdict(plain, weight)
    norm = nn.LayerNorm(6)
    assert verdict(norm, torch.ones(6)) == HELD
    assert "holds (6,) of (12,)" in verdict(norm, torch.ones(12))
    norm.weight.weight_loader = lambda parameter, tensor: None
    assert "a way of its own" in verdict(norm, torch.ones(6))
    packed = linear.RowParallelLinear(6, 8, bias=False)
    packed.weight = nn.Parameter(torch.empty(0), requires_grad=False)
    assert verdict(packed, weight) == "it is packed for a kernel"
