"""Writes tensors into vLLM's running model, inside each of its workers, and compares what each worker holds.

A parameter has three names: the one in transformers' model, the one on disk (the same, or without its first part;
`BaseWeights.on_disk`), and vLLM's module path with the shard of a fused parameter (`_Location`). What is passed between
processes is names, paths and numbers; each worker reads the tensors from the files itself, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from overedit.tasks.engine.vllm_comparison import HELD, Comparison

WORKER_EXTENSION = "overedit.tasks.engine.vllm_weights.SwapExtension"
"""vLLM's `worker_extension_cls`: each worker gets the methods of this class."""


class StoredTensor(NamedTuple):
    """A tensor on disk; as a plain sequence it can be passed to a worker."""

    path: str
    """Its safetensors file."""
    key: str
    """Its name in the file."""
    in_out: bool
    """Whether it is a projection's weight stored as (in, out), as GPT-2's are."""


class _Location(NamedTuple):
    """Where vLLM keeps a tensor of the checkpoint format."""

    module: str
    kind: str
    """`weight` or `bias`."""
    shard: Any
    """Which part of a fused parameter (q, k and v; gate and up); None for an unfused one."""


class SwapExtension:
    """The methods that vLLM's workers get; no request may be in flight while one runs.

    A worker has the modules of its own stage of a pipeline, and a part of each of them.
    """

    rank: int
    model_runner: Any
    reload_weights: Callable[..., None]

    def overedit_modules(self, names: Sequence[str]) -> dict[str, str]:
        """Which of these tensors, by their names on disk, this worker has -> the module that holds each."""
        return {name: location.module for name, location in _locations(self._overedit_model(), names).items()}

    def overedit_write(self, stored: Mapping[str, Sequence[Any]]) -> dict[str, int]:
        """Write this worker's parts of tensors.

        vLLM reloads whole modules: a parameter of such a module that is not passed is left uninitialized, without an
        error. The key-value cache of the old weights is cleared.

        Args:
            stored: Name on disk -> `StoredTensor`; for each module, all of its tensors or none.

        Returns:
            Name on disk -> bytes of the whole tensor, for those that this worker has.
        """
        model = self._overedit_model()
        here = sorted(_locations(model, stored))
        written: dict[str, int] = {}
        if not here:
            return written
        with ExitStack() as files:
            tensors = _read(here, stored, files, written)
            self.reload_weights(weights_iterator=tensors)
        _pack_tied_heads(model, {location.module for location in _locations(model, here).values()})
        _clear_keys_and_values(self.model_runner.kv_caches)
        return written

    def overedit_compare(self, stored: Mapping[str, Sequence[Any]]) -> dict[str, str]:
        """Compare what this worker holds of tensors, place by place, with its part of the files' contents.

        Args:
            stored: Name on disk -> `StoredTensor`.

        Returns:
            Name on disk -> `HELD`, `OTHER_VALUES`, or why it cannot be compared; for those that this worker has.
        """
        model = self._overedit_model()
        modules = dict(model.named_modules())
        locations = _locations(model, stored)
        by_module = sorted(locations, key=lambda name: (locations[name].module, name))
        verdicts, comparison = {}, Comparison()
        with ExitStack() as files:
            for name, tensor in _read(by_module, stored, files, {}):
                path, kind, shard = locations[name]
                places = [modules[path], *_tied_heads(modules, path, kind)]
                in_out = bool(stored[name][2])
                found = [comparison.verdict(module, kind, shard, tensor, in_out=in_out) for module in places]
                verdicts[name] = next((verdict for verdict in found if verdict != HELD), HELD)
        return verdicts

    def _overedit_model(self) -> Any:
        return self.model_runner.get_model()


def _read(
    names: Iterable[str], stored: Mapping[str, Sequence[Any]], files: ExitStack, sizes: dict[str, int]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Read tensors one at a time from their memory-mapped files, which `files` closes; `sizes` gets their bytes."""
    opened: dict[str, Any] = {}
    for name in names:
        path, key, _ = stored[name]
        if path not in opened:
            opened[path] = files.enter_context(safe_open(path, framework="pt"))
        tensor = opened[path].get_tensor(key)
        sizes[name] = tensor.nbytes
        yield name, tensor


def _locations(model: Any, names: Iterable[str]) -> dict[str, _Location]:
    """Find the module of each tensor by vLLM's own table of names; a tensor that it does not map is left out."""
    modules = dict(model.named_modules())
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


@torch.inference_mode()
def _clear_keys_and_values(caches: Iterable[torch.Tensor]) -> None:
    """Overwrite the cache: a NaN left by broken weights would leak into later answers of sound ones (0 x NaN)."""
    for cache in caches:
        cache.zero_()


def _pack_tied_heads(model: Any, written: set[str]) -> None:
    """Pack again, for the CPU's kernels, what shares a parameter with a written module and was not reloaded itself."""
    modules = dict(model.named_modules())
    for path in written:
        for head in _tied_heads(modules, path, "weight"):
            head.quant_method.process_weights_after_loading(head)


def _tied_heads(modules: Mapping[str, Any], path: str, kind: str) -> list[Any]:
    """The other modules that share a module's parameter: a head that is tied to the embeddings."""
    held = getattr(modules[path], kind)
    if kind != "weight" or held.numel() == 0:
        return []
    return [
        module
        for other, module in modules.items()
        if other != path and getattr(module, "weight", None) is held and hasattr(module, "quant_method")
    ]
