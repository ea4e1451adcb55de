"""Which rows and columns of a whole weight one rank of vLLM holds, and where in its own parameter.

vLLM splits a linear layer over its ranks by rows of the weight, (out, in), or by columns; several projections may be
stacked in one parameter, where each rank holds its rows of the first, then of the second, and so on. Layouts that this
module does not know are refused, never guessed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

ROWS, COLUMNS = 0, 1


class UnknownLayoutError(Exception):
    """A parameter whose places in the whole weight are not known; the message says why."""


class Block(NamedTuple):
    """A range of rows or columns that a rank holds of a whole weight."""

    dim: int
    """`ROWS` or `COLUMNS`, counted in vLLM's weight, which is (out, in)."""
    start: int
    """First row or column in the whole weight."""
    place: int
    """First row or column in the rank's parameter."""
    size: int
    """Number of rows or columns."""


def column_parallel(num_rows: int, rank: int, ranks: int) -> tuple[Block, ...]:
    """A rank's rows of a weight that is split by its outputs."""
    size = _share(num_rows, ranks)
    return (Block(ROWS, rank * size, 0, size),)


def row_parallel(num_columns: int, rank: int, ranks: int) -> tuple[Block, ...]:
    """A rank's columns of a weight that is split by its inputs."""
    size = _share(num_columns, ranks)
    return (Block(COLUMNS, rank * size, 0, size),)


def merged(sizes: tuple[int, ...], shard: int | tuple[int, ...] | None, rank: int, ranks: int) -> tuple[Block, ...]:
    """A rank's rows of one of several stacked weights, or of weights that are stacked on disk too.

    Args:
        sizes: Rows of each of the stacked weights, over all ranks.
        shard: Index of the weight; several indices, or None for all, if they are one tensor on disk.
        rank: The rank.
        ranks: Number of ranks.
    """
    shards = (shard,) if isinstance(shard, int) else tuple(range(len(sizes))) if shard is None else shard
    shares = [_share(size, ranks) for size in sizes]
    blocks, start = [], 0
    for index in shards:
        blocks.append(Block(ROWS, start + rank * shares[index], sum(shares[:index]), shares[index]))
        start += sizes[index]
    return tuple(blocks)


def query_key_value(
    heads: tuple[int, int], head_sizes: tuple[int, int], shard: str | None, rank: int, ranks: int
) -> tuple[Block, ...]:
    """A rank's rows of the query, key or value projection, or of all three if they are one tensor on disk.

    Args:
        heads: Number of query heads and of key-value heads, over all ranks; with fewer key-value heads than ranks,
            several ranks hold the same one.
        head_sizes: Rows of a query or key head, and of a value head.
        shard: `q`, `k`, `v`, or None for all three.
        rank: The rank.
        ranks: Number of ranks.
    """
    queries, key_values = heads
    copies = max(1, ranks // key_values)
    if key_values * copies % ranks:
        raise UnknownLayoutError(f"{key_values} key-value heads cannot be shared by {ranks} ranks")
    q_size = _share(queries, ranks) * head_sizes[0]
    k_size, v_size = (key_values * copies // ranks * size for size in head_sizes)
    starts = {"q": rank * q_size, "k": rank // copies * k_size, "v": rank // copies * v_size}
    before = {"q": 0, "k": queries * head_sizes[0], "v": (queries + key_values) * head_sizes[0]}
    places, sizes = {"q": 0, "k": q_size, "v": q_size + k_size}, {"q": q_size, "k": k_size, "v": v_size}
    if shard is not None:
        return (Block(ROWS, starts[shard], places[shard], sizes[shard]),)
    return tuple(Block(ROWS, before[part] + starts[part], places[part], sizes[part]) for part in "qkv")


def whole(num_rows: int) -> tuple[Block, ...]:
    """All rows, of a weight that each rank holds as a whole."""
    return (Block(ROWS, 0, 0, num_rows),)


def blocks_held(module: Any, kind: str, shard: Any, shape: tuple[int, ...]) -> tuple[Block, ...]:
    """What a module of vLLM holds of a whole tensor.

    Args:
        module: The module.
        kind: `weight` or `bias`.
        shard: vLLM's name of the part of a stacked parameter; None for a whole one.
        shape: Shape of the whole tensor, (out, in) for a projection.

    Raises:
        UnknownLayoutError: The module is not one whose layout is known.
    """
    from vllm.model_executor.layers import linear
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    known = (
        linear.QKVParallelLinear,
        linear.MergedColumnParallelLinear,
        linear.ColumnParallelLinear,
        linear.RowParallelLinear,
        linear.ReplicatedLinear,
        VocabParallelEmbedding,
    )
    layout = next((layout for layout in known if isinstance(module, layout)), None)
    if layout is None:
        return _of_another_module(module, kind, shard, shape)
    _check_is_plain(module, layout)
    if kind not in ("weight", "bias"):
        raise UnknownLayoutError(f"{kind} is neither a weight nor a bias")
    if layout is VocabParallelEmbedding:
        indices = module.shard_indices
        start, end = indices.org_vocab_start_index, indices.org_vocab_end_index
        return (Block(ROWS, start, 0, end - start),)
    if layout is linear.QKVParallelLinear:
        heads, sizes = (module.total_num_heads, module.total_num_kv_heads), (module.head_size, module.v_head_size)
        return query_key_value(heads, sizes, shard, module.tp_rank, module.tp_size)
    if layout is linear.MergedColumnParallelLinear:
        return merged(tuple(module.output_sizes), shard, module.tp_rank, module.tp_size)
    if shard is not None:
        raise UnknownLayoutError(f"{type(module).__name__} holds a part named {shard!r}")
    if layout is linear.ColumnParallelLinear:
        return column_parallel(shape[0], module.tp_rank, module.tp_size)
    if layout is linear.RowParallelLinear and kind == "weight":
        return row_parallel(shape[1], module.tp_rank, module.tp_size)
    return whole(shape[0])


def is_projection(module: Any) -> bool:
    """Whether a module is one of vLLM's linear layers, whose weight is (out, in) whatever it is on disk."""
    from vllm.model_executor.layers.linear import LinearBase

    return isinstance(module, LinearBase)


def is_embedding(module: Any) -> bool:
    """Whether a module looks its rows up, and does not multiply with them."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    return isinstance(module, VocabParallelEmbedding) and not isinstance(module, ParallelLMHead)


def _of_another_module(module: Any, kind: str, shard: Any, shape: tuple[int, ...]) -> tuple[Block, ...]:
    """A norm, or a module of transformers: held as a whole, unless it has a way of its own to load its parameter."""
    from vllm.model_executor.model_loader.weight_utils import default_weight_loader

    parameter = getattr(module, kind)
    name = type(module).__name__
    if getattr(parameter, "weight_loader", default_weight_loader) is not default_weight_loader:
        raise UnknownLayoutError(f"{name} loads its {kind} in a way of its own")
    if shard is not None or tuple(parameter.shape) != shape:
        raise UnknownLayoutError(f"{name} holds {tuple(parameter.shape)} of {shape}")
    return whole(shape[0]) if shape else ()


def _check_is_plain(module: Any, layout: type[Any]) -> None:
    """Refuse a quantized layer, and a subclass that loads its parameters in another way."""
    method = type(module.quant_method).__name__
    if method not in ("UnquantizedLinearMethod", "UnquantizedEmbeddingMethod"):
        raise UnknownLayoutError(f"it is quantized ({method})")
    for loader in ("weight_loader", "weight_loader_v2"):
        if getattr(type(module), loader, None) is not getattr(layout, loader, None):
            raise UnknownLayoutError(f"{type(module).__name__} loads its parameters in a way of its own")


def _share(total: int, ranks: int) -> int:
    if total % ranks:
        raise UnknownLayoutError(f"{total} rows or columns cannot be shared by {ranks} ranks")
    return total // ranks
