"""What is done inside vLLM's worker: write tensors into the running model, and read back what it holds afterwards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch

from overedit.tasks.models.base_weights import BaseWeights

SHARDS = ("q", "k", "v", 0, 1, 2, 3)
"""vLLM's names of the parts of a fused parameter, in the order in which they lie in it."""


class Exchange(NamedTuple):
    """What was written, and what was found afterwards."""

    bytes_written: int
    found: dict[str, bool | None]
    """vLLM's parameter -> whether it holds what was written; None where it cannot be read."""


class _Place(NamedTuple):
    """Where vLLM keeps a tensor of the checkpoint format."""

    module: str
    kind: str
    """`weight` or `bias`."""
    shard: Any
    """Which part of a fused parameter it is (q, k and v; gate and up); None if it is all of it."""


def exchange(worker: Any, tensors: Mapping[str, torch.Tensor], base: BaseWeights) -> Exchange:
    """Write tensors into a running vLLM worker and read them back.

    vLLM reloads whole modules: what a module holds and is not handed over is left uninitialised, without an error. So
    everything that shares a module with a written tensor is written again, from the base. Keys and values of the old
    weights are cleared.

    Args:
        worker: vLLM's worker, in this process, with no request in flight.
        tensors: Name on disk -> tensor, any dtype; vLLM keeps its own.
        base: The pristine weights.

    Raises:
        ValueError: vLLM keeps a tensor where it cannot be exchanged. Nothing was written.
    """
    model = worker.model_runner.get_model()
    modules = dict(model.named_modules())
    places = _places(model, modules, base.names())
    if lost := [name for name in tensors if name not in places]:
        raise ValueError(
            f"vLLM's {type(model).__name__} has no module for {', '.join(lost)}; set engine.kind to transformers"
        )
    touched = {places[name].module for name in tensors}
    together = [name for name, place in places.items() if place.module in touched]
    whole = dict(tensors) | base.read(name for name in together if name not in tensors)
    worker.reload_weights(weights_iterator=iter(sorted(whole.items())))
    _clear_keys_and_values(worker)
    parameters: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in sorted(together, key=lambda name: _order(places[name].shard)):
        parameters[places[name].module, places[name].kind].append(name)
    found = {
        f"{path}.{kind}": _holds(modules[path], kind, torch.cat([whole[name] for name in names]))
        for (path, kind), names in parameters.items()
    }
    return Exchange(sum(tensor.nbytes for tensor in whole.values()), found)


def _places(model: Any, modules: Mapping[str, Any], names: Iterable[str]) -> dict[str, _Place]:
    """Where each tensor of the checkpoint format is kept, as far as vLLM's own table of names tells."""
    children = [child for _, child in model.named_children()]
    mappers = [m for part in (model, *children) if (m := getattr(part, "hf_to_vllm_mapper", None)) is not None]
    prefixes = ["", *(f"{prefix}." for prefix, _ in model.named_children())]
    places = {}
    for name in names:
        for mapper in (*mappers, None):
            mapped = name if mapper is None else mapper.map_name(name)
            path, _, kind = (mapped or "").rpartition(".")
            known = (p + path for p in prefixes if p + path in modules and hasattr(modules[p + path], kind))
            if (module := next(known, None)) is not None:
                places[name] = _Place(module, kind, _shard(mapper, name))
                break
    return places


def _shard(mapper: Any, name: str) -> Any:
    stacked = getattr(mapper, "orig_to_new_stacked", None) or {}
    return next((shard for part, (_, shard) in stacked.items() if part in name), None)


def _order(shard: Any) -> int:
    return SHARDS.index(shard) if shard in SHARDS else len(SHARDS)


@torch.inference_mode()
def _clear_keys_and_values(worker: Any) -> None:
    """Overwrite the cache: a NaN that broken weights left in it would leak into answers of sound ones (0 x NaN)."""
    for cache in worker.model_runner.kv_caches:
        cache.zero_()


def _holds(module: Any, kind: str, expected: torch.Tensor) -> bool | None:
    """Whether a module's own parameter has the expected values, up to the layout its loader gives them."""
    held = getattr(module, kind)
    if held.numel() == 0:  # packed for the CPU's kernels, so it is read through the kernel itself
        if kind != "weight" or not bool(expected.isfinite().all()):
            return None
        held = _through_the_kernel(module, held.dtype)
    if held.dim() == expected.dim() and held.shape[0] > expected.shape[0] and held.shape[1:] == expected.shape[1:]:
        held = held[: expected.shape[0]]  # a vocabulary is padded
    if held.numel() != expected.numel():
        return None
    return _same_values(held.detach(), expected.to(device=held.device, dtype=held.dtype))


@torch.inference_mode()
def _through_the_kernel(module: Any, dtype: torch.dtype) -> torch.Tensor:
    """A linear module's weight, (out, in), read by multiplying it with the identity, which is exact."""
    identity = torch.eye(module.input_size, dtype=dtype)
    rows = [module.quant_method.apply(module, part, None) for part in identity.split(1024)]
    return torch.cat(rows).T


def _same_values(held: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal entry by entry; or, where the loader transposed or permuted the weight, as collections of values."""
    if held.shape == expected.shape and torch.equal(held, expected):
        return True
    a, b = (tensor.flatten().float().sort().values for tensor in (held, expected))
    return bool(((a == b) | (a.isnan() & b.isnan()) | ((a - b).abs() <= torch.finfo(torch.float32).tiny)).all())
