"""The trained suffix: the part of a model that a training step runs, from the trained site to the logits.

The model's own forward pass runs with some modules replaced: the layers before the site return their cached activations
(see `prefix_cache`), and the last MLP and the head are computed only where logits are read. Masks, rotary tables and
logit scaling are the model's own, so no family needs code here.

Shapes: B sequences of a pass, T tokens, U positions whose logits are read, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from transformers import PreTrainedModel

from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.partial_forward.prefix_cache import Prefix


class Suffix:
    """Runs the part of a model that a training step needs: from the site to the logits at the read positions."""

    def __init__(self, model: PreTrainedModel, site: str, prefix: Prefix) -> None:
        self.model, self.prefix = model, prefix
        anatomy = Anatomy.of(model)
        tuned, last = anatomy.site_layer(site), anatomy.num_layers - 1
        self._module = model.get_submodule(anatomy.site_module(site))
        self._mlp = model.get_submodule(anatomy.site_module(f"{last}.mlp"))
        self._head = model.get_submodule(anatomy.head)
        layers = [model.get_submodule(anatomy.layer_name(index)) for index in range(tuned + 1)]
        self._run_layer, self._run_mlp, self._run_head = layers[-1].forward, self._mlp.forward, self._head.forward
        self.stand_ins: dict[nn.Module, Callable[..., Any]] = {self._mlp: self._last_mlp, self._head: self._read}
        if prefix.start != "embedding":
            self.stand_ins |= dict.fromkeys(layers[:-1], self._skip)
            self.stand_ins[layers[-1]] = self._from_module if prefix.start == "module" else self._from_layer
        self._rows_BT = self._reads_U = torch.empty(0, dtype=torch.int64)
        self._entering_BTD = torch.empty(0)

    def logits_UV(
        self, parameters: Mapping[str, torch.Tensor], rows_BT: torch.Tensor, reads_U: torch.Tensor
    ) -> torch.Tensor:
        """Logits at the read positions, with `parameters` in place of the model's own.

        Args:
            parameters: Trained parameters by name, in the model's dtype; gradients flow to them.
            rows_BT: Rows of the prefix, from `Prefix.rows`.
            reads_U: Flat positions b * T + t whose logits are read, each once, int64.
        """
        self._rows_BT, self._reads_U = rows_BT, reads_U
        entering_RD = self.prefix.rest_RD if self.prefix.start == "module" else self.prefix.inputs_RX
        if entering_RD is None:
            self._entering_BTD = self.model.get_input_embeddings()(self.prefix.ids_R[rows_BT])
        else:
            self._entering_BTD = entering_RD[rows_BT]
        inputs = {"inputs_embeds": self._entering_BTD, "use_cache": False}
        output = functional_call(self.model, dict(parameters), (), inputs, tie_weights=False)
        logits_UV: torch.Tensor = output.logits[0]
        return logits_UV

    def _skip(self, *_: Any, **__: Any) -> Any:
        return self._answer(self._entering_BTD)

    def _from_module(self, *_: Any, **__: Any) -> Any:
        assert self.prefix.inputs_RX is not None
        return self._answer(self._entering_BTD + self._module(self.prefix.inputs_RX[self._rows_BT]))

    def _from_layer(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("hidden_states", None)
        return self._run_layer(self._entering_BTD, *args[1:], **kwargs)

    def _answer(self, hidden_BTD: torch.Tensor) -> Any:
        return (hidden_BTD,) if self.prefix.gives_tuple else hidden_BTD

    def _last_mlp(self, hidden_BTD: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """No later layer mixes positions, so the last MLP is computed only where logits are read."""
        flat = hidden_BTD.flatten(0, 1)
        output_UD = self._run_mlp(flat.index_select(0, self._reads_U)[None], *args, **kwargs)[0]
        return torch.zeros_like(flat).index_copy(0, self._reads_U, output_UD).view_as(hidden_BTD)

    def _read(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        logits_1UV: torch.Tensor = self._run_head(hidden_BTD.flatten(0, 1).index_select(0, self._reads_U)[None])
        return logits_1UV
