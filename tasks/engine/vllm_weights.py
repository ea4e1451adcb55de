"""Writes tensors into vLLM's running model, inside its worker, and reads back what the model holds afterwards.

A parameter has three names: the one in transformers' model, the one on disk (the same, or without its first part;
`BaseWeights.on_disk`), and vLLM's module path with the shard of a fused parameter (`_Location`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch

from overedit.tasks.models.base_weights import BaseWeights

SHARDS = ("q", "k", "v", 0, 1, 2, 3)
"""vLLM's names of the parts of a fused parameter, in the order in which they are stacked."""


class WriteResult(NamedTuple):
    """What was written, and what was read back."""

    bytes_written: int
    verified: dict[str, bool | None]
    """vLLM's parameter -> whether it has the written values; None where it cannot be read."""


class _Location(NamedTuple):
    """Where vLLM keeps a tensor of the checkpoint format."""

    module: str
    kind: str
    """`weight` or `bias`."""
    shard: Any
    """Which part of a fused parameter (q, k and v; gate and up); None for an unfused one."""


def write_and_verify(worker: Any, tensors: Mapping[str, torch.Tensor], base: BaseWeights) -> WriteResult:
    """Write tensors into a running vLLM worker and read them back.

    vLLM reloads whole modules: a parameter of such a module that is not passed is left uninitialized, without an error.
    So every tensor that shares a module with a written one is written again, from the base. The key-value cache of the
    old weights is cleared.

    Args:
        worker: vLLM's worker, in this process, with no request in flight.
        tensors: Name on disk -> tensor, any dtype; vLLM keeps its own.
        base: The pristine weights.

    Raises:
        ValueError: vLLM has no module for a tensor. Nothing was written.
    """
    model = worker.model_runner.get_model()
    modules = dict(model.named_modules())
    locations = _locations(model, modules, base.names())
    if lost := [name for name in tensors if name not in locations]:
        raise ValueError(
            f"vLLM's {type(model).__name__} has no module for {', '.join(lost)}; set engine.kind to transformers"
        )
    touched = {locations[name].module for name in tensors}
    together = [name for name, location in locations.items() if location.module in touched]
    whole = dict(tensors) | base.read(name for name in together if name not in tensors)
    worker.reload_weights(weights_iterator=iter(sorted(whole.items())))
    _clear_keys_and_values(worker)
    parameters: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in sorted(together, key=lambda name: _order(locations[name].shard)):
        parameters[locations[name].module, locations[name].kind].append(name)
    verified = {
        f"{path}.{kind}": _holds(modules[path], kind, torch.cat([whole[name] for name in names]))
        for (path, kind), names in parameters.items()
    }
    return WriteResult(sum(tensor.nbytes for tensor in whole.values()), verified)


def _locations(model: Any, modules: Mapping[str, Any], names: Iterable[str]) -> dict[str, _Location]:
    """Find the module of each tensor by vLLM's own table of names; a tensor that it does not map is left out."""
    children = [child for _, child in model.named_children()]
    mappers = [m for part in (model, *children) if (m := getattr(part, "hf_to_vllm_mapper", None)) is not None]
    prefixes = ["", *(f"{prefix}." for prefix, _ in model.named_children())]
    locations = {}
    for name in names:
        for mapper in (*mappers, None):
            mapped = name if mapper is None else mapper.map_name(name)
            path, _, kind = (mapped or "").rpartition(".")
            known = (p + path for p in prefixes if p + path in modules and hasattr(modules[p + path], kind))
            if (module := next(known, None)) is not None:
                locations[name] = _Location(module, kind, _shard(mapper, name))
                break
    return locations


def _shard(mapper: Any, name: str) -> Any:
    stacked = getattr(mapper, "orig_to_new_stacked", None) or {}
    return next((shard for part, (_, shard) in stacked.items() if part in name), None)


def _order(shard: Any) -> int:
    return SHARDS.index(shard) if shard in SHARDS else len(SHARDS)


@torch.inference_mode()
def _clear_keys_and_values(worker: Any) -> None:
    """Overwrite the cache: a NaN left by broken weights would leak into later answers of sound ones (0 x NaN)."""
    for cache in worker.model_runner.kv_caches:
        cache.zero_()


def _holds(module: Any, kind: str, expected: torch.Tensor) -> bool | None:
    """Whether a module's parameter has the expected values, whatever layout its loader chose."""
    held = getattr(module, kind)
    if held.numel() == 0:  # packed for the CPU's kernels: it can only be read through the kernel
        if kind != "weight" or not bool(expected.isfinite().all()):
            return None
        held = _through_the_kernel(module, held.dtype)
    if held.dim() == expected.dim() and held.shape[0] > expected.shape[0] and held.shape[1:] == expected.shape[1:]:
        held = held[: expected.shape[0]]  # vLLM pads the vocabulary
    if held.numel() != expected.numel():
        return None
    return _same_values(held.detach(), expected.to(device=held.device, dtype=held.dtype))


@torch.inference_mode()
def _through_the_kernel(module: Any, dtype: torch.dtype) -> torch.Tensor:
    """Read a linear module's weight, (out, in), by multiplying it with the identity, which is exact."""
    identity = torch.eye(module.input_size, dtype=dtype)
    rows = [module.quant_method.apply(module, part, None) for part in identity.split(1024)]
    return torch.cat(rows).T


def _same_values(held: torch.Tensor, expected: torch.Tensor) -> bool:
    """Compare entry by entry, or as sorted values where the loader transposed or permuted the weight."""
    if held.shape == expected.shape and torch.equal(held, expected):
        return True
    a, b = (tensor.flatten().float().sort().values for tensor in (held, expected))
    return bool(((a == b) | (a.isnan() & b.isnan()) | ((a - b).abs() <= torch.finfo(torch.float32).tiny)).all())
