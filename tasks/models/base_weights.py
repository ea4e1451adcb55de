"""The pristine weights on disk: a swap checks a checkpoint against them, and restores them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from overedit.editing.model.anatomy import is_projection, stores_in_out
from overedit.tasks.models.reference import ModelReference


class BaseWeights:
    """A model's weights in its safetensors files, read tensor by tensor.

    Args:
        model: Which model.

    Raises:
        ValueError: The model has no safetensors files (reading other formats can run code).
    """

    def __init__(self, model: ModelReference) -> None:
        self.config = model.load_config()
        self.folder = _folder(model.locate(), model.revision)
        self._files = _file_of_each_tensor(self.folder)
        if not self._files:
            raise ValueError(
                f"model: {model.name} has no weights in safetensors files (*.safetensors in {self.folder})"
            )

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the stored weights: the configuration's, else the first tensor's."""
        named = getattr(self.config, "dtype", None)
        return named if isinstance(named, torch.dtype) else self.read([next(iter(self._files))]).popitem()[1].dtype

    def file_of(self, name: str) -> Path:
        """The file that holds a tensor, by its name on disk."""
        return self._files[name]

    @cached_property
    def stored_in_out(self) -> frozenset[str]:
        """Names on disk of the projections whose weights are stored as (in, out), as GPT-2's are."""
        try:
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(self.config, trust_remote_code=False)
        except ValueError:  # no language model of transformers: none of its projections is stored so
            return frozenset()
        projections = {f"{name}.weight": module for name, module in model.named_modules() if is_projection(module)}
        return frozenset(self.on_disk(name) or name for name, module in projections.items() if stores_in_out(module))

    def names(self) -> list[str]:
        """The names of all tensors on disk."""
        return list(self._files)

    def on_disk(self, name: str) -> str | None:
        """A parameter's name on disk, where some files omit the first part (`transformer.`); None if missing."""
        shortened = name.partition(".")[2]
        return next((known for known in (name, shortened) if known in self._files), None)

    def read(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """Read tensors to the CPU by their names on disk."""
        tensors = {}
        for name in names:
            with safe_open(self._files[name], framework="pt") as file:
                tensors[name] = file.get_tensor(name)
        return tensors

    def renamed(self, tensors: Mapping[str, torch.Tensor], source: Path) -> dict[str, torch.Tensor]:
        """Rename a checkpoint's tensors to their names on disk.

        Args:
            tensors: Parameter name -> edited tensor.
            source: The checkpoint's folder, for messages.

        Raises:
            ValueError: The model has no such weight, or it has another shape.
        """
        renamed = {self.on_disk(name) or name: tensor for name, tensor in tensors.items()}
        shapes = {name: self._shape(name) if name in renamed else () for name in self._files}
        check_fit(renamed, source, shapes)
        return renamed

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        """The stored shape of a parameter; None where no file has it by its name."""
        stored = self.on_disk(name)
        return None if stored is None else self._shape(stored)

    def _shape(self, name: str) -> tuple[int, ...]:
        with safe_open(self._files[name], framework="pt") as file:
            return tuple(file.get_slice(name).get_shape())


def check_fit(tensors: Mapping[str, torch.Tensor], source: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that a checkpoint belongs to a model.

    Args:
        tensors: The checkpoint's tensors.
        source: The checkpoint's folder, for messages.
        shapes: Name -> shape of each of the model's weights.

    Raises:
        ValueError: The model has no such weight, or it has another shape.
    """
    for name, tensor in tensors.items():
        if name not in shapes:
            near = get_close_matches(name, shapes, n=3, cutoff=0.3)
            raise ValueError(f"{source}: the model has no weight {name}; similar names: {', '.join(near)}")
        if shapes[name] != tuple(tensor.shape):
            raise ValueError(f"{source}: {name} is {tuple(tensor.shape)}, but in the model it is {shapes[name]}")


def _folder(where: str, revision: str | None) -> Path:
    if Path(where).is_dir():
        return Path(where)
    from huggingface_hub import snapshot_download

    wanted = ["*.safetensors", "*.json", "*.txt", "*.model"]
    return Path(snapshot_download(where, revision=revision, allow_patterns=wanted))


def _file_of_each_tensor(folder: Path) -> dict[str, Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return {name: folder / file for name, file in json.loads(index.read_text())["weight_map"].items()}
    single = folder / "model.safetensors"
    files = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    names: dict[str, Path] = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            names |= dict.fromkeys(file.keys(), path)
    return names
