"""The linear layers of a model's decoder: the weights that quantization rounds and further training trains."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from overedit.editing.model.anatomy import Anatomy


def linear_weights(model: PreTrainedModel, *, mlp_only: bool = False) -> dict[str, nn.Module]:
    """The linear layers of all decoder layers; not the embeddings, norms and biases, and not the head.

    Args:
        model: The model, which may be on the meta device.
        mlp_only: Leave out the attention's.

    Returns:
        Name of the weight -> its module, in the model's order.

    Raises:
        ValueError: The model's routed experts are one parameter with three dimensions, and no linear layers.
    """
    anatomy = Anatomy.of(model)
    prefix = f"{anatomy.layers}."
    experts = [name for name, value in model.named_parameters() if value.dim() > 2 and name.startswith(prefix)]
    if experts:
        raise ValueError(f"the routed experts of family {anatomy.family} ({experts[0]}) are not linear layers")
    mlps = tuple(f"{anatomy.site_module(f'{index}.mlp')}." for index in range(anatomy.num_layers))
    return {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and name.startswith(mlps if mlp_only else prefix)
    }
