"""Round-to-nearest quantization of weights: symmetric, one scale for each output channel, no calibration data.

With b bits a weight w of an output channel with the largest magnitude m becomes

    scale * round(w / scale),     scale = m / (2^(b-1) - 1)

in the model's dtype, as if a kernel had multiplied with the integers and the scale. Activations are not quantized. This
is the baseline of the literature on quantization (RTN, e.g. in arXiv 2210.17323, section 4).

Shapes: I inputs and O outputs of a linear layer.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from overedit.editing.durability.linear_layers import linear_weights
from overedit.editing.model.anatomy import stores_in_out
from overedit.editing.model.weights import Replacement, WeightUpdate


def quantized_weights(model: PreTrainedModel, bits: int) -> WeightUpdate:
    """Round the weights of all linear layers of the decoder.

    Args:
        model: Not changed.
        bits: Of the integers, at least 2.

    Returns:
        Parameter name -> its rounded values, in its own dtype and on its device.

    Raises:
        ValueError: As `linear_weights`.
    """
    found: WeightUpdate = {}
    for name, module in linear_weights(model).items():
        weight = module.get_parameter("weight").detach()
        found[name] = Replacement(rounded(weight, bits, in_out=stores_in_out(module)))
    return found


def rounded(weight: torch.Tensor, bits: int, *, in_out: bool) -> torch.Tensor:
    """Round one weight to `bits` bits.

    Args:
        weight: (O, I), or (I, O) if `in_out`; any floating dtype.
        bits: Of the integers, at least 2.
        in_out: How it is stored.

    Returns:
        The rounded values, in the shape and dtype of the weight; computed in float32 or wider.
    """
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    most = 2 ** (bits - 1) - 1
    scale = wide.abs().amax(dim=0 if in_out else 1, keepdim=True) / most
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return ((wide / scale).round() * scale).to(weight.dtype)
