"""Where a model's weights lie while it is edited: on one device, over several GPUs, in host memory, or in its files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import safe_open
from transformers import PreTrainedModel

from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.streaming import Fetch, stream_layers, streamed_parameters
from overedit.tasks.models.base_weights import BaseWeights
from overedit.tasks.models.loading import LoadedModel, load_model
from overedit.tasks.models.reference import ModelReference

FITS = 0.5
"""Share of a GPU's free memory that the weights may take; the rest is for activations, gradients and keys."""


class Placement(BaseModel):
    """Where the frozen weights of the decoder layers lie while a model is edited; the results are the same bits."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    placement: Literal["auto", "one", "layers"] = "auto"
    """`one` device; or `layers`: spread over all GPUs, and copied to the first one layer by layer as they are needed.
    `auto` is `one` where the weights take at most half of its free memory, or where there is no other GPU."""
    offload: Literal["none", "cpu", "disk"] = "none"
    """`cpu`: they stay in host memory; `disk`: in the model's files. They are read layer by layer in each pass, so that
    the device needs memory for two layers, the embedding, the head, and the edited weights."""


def check_placement(placement: Placement) -> None:
    """Check that the weights of a model can lie so on this machine.

    Raises:
        ValueError: They cannot; the message has the key, the value and what is accepted.
    """
    gpus = torch.cuda.device_count()
    if placement.offload == "none" and placement.placement == "layers" and gpus < 2:
        raise ValueError(
            f"editing.placement: layers needs several GPUs, and there are {gpus}; accepted: auto, one, or "
            "editing.offload: cpu or disk"
        )


def load_placed(reference: ModelReference, placement: Placement, sites: Collection[str]) -> LoadedModel:
    """Load a model for the editing of some sites, with its other weights where they are to lie.

    Raises:
        ValueError: As `load_model`, or the placement is not possible here.
    """
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    check_placement(placement)
    in_host_memory = placement.offload == "cpu" and not gpus  # where it is anyway
    alone = placement.offload == "none" and (placement.placement == "one" or len(gpus) < 2)
    if alone or in_host_memory:
        return load_model(reference)
    loaded = load_model(reference, device=torch.device("cpu"))
    model = loaded.model
    if placement.offload == "none" and placement.placement == "auto" and _fits(model, gpus[0]):
        return loaded._replace(model=model.to(gpus[0]))
    device, anatomy = gpus[0] if gpus else torch.device("cpu"), Anatomy.of(model)
    streamed = streamed_parameters(anatomy, sites)
    if placement.offload == "disk":
        fetch = _from_files(BaseWeights(reference), model, streamed, device)
    else:
        homes = gpus if placement.offload == "none" else [torch.device("cpu")]
        fetch = _from_memory(model, streamed, homes, device)
    stream_layers(model, fetch, sites=sites)
    return loaded._replace(model=_to_device(model, device))


def _fits(model: PreTrainedModel, gpu: torch.device) -> bool:
    free: int = torch.cuda.mem_get_info(gpu)[0]
    weights: int = sum(parameter.nbytes for parameter in model.parameters())
    return weights <= FITS * free


def _from_memory(
    model: PreTrainedModel, names: Sequence[str], homes: list[torch.device], device: torch.device
) -> Fetch:
    """Weights that are held on other devices, in consecutive parts of about equal size."""
    share = -(-len(names) // len(homes))
    held = {name: model.get_parameter(name).detach().to(homes[at // share]) for at, name in enumerate(names)}
    return lambda name: held[name].to(device, non_blocking=True)


def _from_files(files: BaseWeights, model: PreTrainedModel, names: Sequence[str], device: torch.device) -> Fetch:
    """Weights that are read from the model's files each time; on a CPU their pages are mapped, not copied.

    Raises:
        ValueError: A file holds a weight under another name or in another shape.
    """
    dtypes = {name: model.get_parameter(name).dtype for name in names}
    for name in names:
        stored, wanted = files.shape_of(name), tuple(model.get_parameter(name).shape)
        if stored != wanted:
            raise ValueError(
                f"editing.offload: disk needs {name} as {wanted} in the model's files, which have "
                f"{'no weight of that name' if stored is None else f'it as {stored}'}; accepted: cpu, none"
            )

    def fetch(name: str) -> torch.Tensor:
        stored_name = files.on_disk(name)
        assert stored_name is not None
        with safe_open(files.file_of(stored_name), framework="pt", device=str(device)) as file:
            weight: torch.Tensor = file.get_tensor(stored_name)
            return weight.to(dtypes[name])

    return fetch


def _to_device(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Move what is not streamed."""
    if device.type == "cpu":
        return model
    return model._apply(partial(_moved, device))


def _moved(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.is_meta else tensor.to(device)
