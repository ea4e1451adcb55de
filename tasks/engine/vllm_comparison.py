"""Compares a parameter of vLLM's running model, place by place, with a rank's part of a whole tensor."""

from __future__ import annotations

from typing import Any

import torch

from overedit.tasks.engine.vllm_shards import UnknownLayoutError, blocks_held, is_embedding, is_projection

HELD = "held"
"""The verdict on a tensor of which a worker holds exactly its part."""
OTHER_VALUES = "other values"
"""The verdict on a tensor of which a worker holds something else. Any other verdict is why it cannot be compared."""


class Comparison:
    """Compares tensors with the parameters that hold them; tensors of one module should follow one another."""

    def __init__(self) -> None:
        self._read: tuple[Any, torch.Tensor] | None = None

    @torch.inference_mode()
    def verdict(self, module: Any, kind: str, shard: Any, tensor: torch.Tensor, *, in_out: bool) -> str:
        """Compare one tensor with what a module holds of it.

        Args:
            module: vLLM's module.
            kind: The name of its parameter, `weight` or `bias`.
            shard: vLLM's name of the part of a stacked parameter; None for a whole one.
            tensor: The whole tensor, as it is on disk.
            in_out: Whether it is a projection's weight that is (in, out) on disk.

        Returns:
            `HELD`, `OTHER_VALUES`, or why it cannot be compared.
        """
        expected = tensor.T if in_out and is_projection(module) else tensor
        held = getattr(module, kind)
        packed = kind == "weight" and hasattr(module, "cpu_linear") and not (is_embedding(module) and held.numel())
        try:
            blocks = blocks_held(module, kind, shard, tuple(expected.shape))
            wanted = [_part(expected, block.dim, block.start, block.size) for block in blocks]
            if packed:
                if not all(bool(part.isfinite().all()) for part in wanted):
                    raise UnknownLayoutError("values that are not finite cannot be read through the CPU's kernel")
                held = self._through_the_kernel(module)
            elif held.numel() == 0:
                raise UnknownLayoutError("it is packed for a kernel")
            dtype = getattr(module, "params_dtype", held.dtype)
            same = [
                _same(_part(held, block.dim, block.place, block.size), part.to(held.device, dtype), packed)
                for block, part in zip(blocks, wanted, strict=True)
            ]
        except UnknownLayoutError as reason:
            return str(reason)
        return HELD if all(same) else OTHER_VALUES

    def _through_the_kernel(self, module: Any) -> torch.Tensor:
        """Read a weight that is packed for the CPU's kernels, (out, in), by multiplying it with the identity.

        That is exact. The identity is as large as the rank's own number of inputs: with a larger one the kernel would
        read beyond its weight.
        """
        if self._read is None or self._read[0] is not module:
            size = getattr(module, "input_size_per_partition", module.input_size)
            parts = torch.eye(size, dtype=module.params_dtype).split(1024)
            self._read = module, torch.cat([module.quant_method.apply(module, part, None) for part in parts]).T
        return self._read[1]


def _part(tensor: torch.Tensor, dim: int, start: int, size: int) -> torch.Tensor:
    if start + size > tensor.shape[dim]:
        raise UnknownLayoutError(f"{tuple(tensor.shape)} has no places {start} to {start + size} in dimension {dim}")
    return tensor.narrow(dim, start, size)


def _same(held: torch.Tensor, expected: torch.Tensor, through_kernel: bool) -> bool:
    """Whether all values are equal, NaN to NaN; a kernel may replace the smallest numbers by zero."""
    if held.shape != expected.shape:
        raise UnknownLayoutError(f"it holds {tuple(held.shape)} where {tuple(expected.shape)} is expected")
    if torch.equal(held, expected.to(held.dtype)):
        return True
    a, b = held.float(), expected.float()
    equal = (a == b) | (a.isnan() & b.isnan())
    if through_kernel:
        equal |= (a - b).abs() <= torch.finfo(torch.float32).tiny
    return bool(equal.all())
