"""Cases of published locate-then-edit implementations: requests, settings and tensors by method and model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from overedit.editing.methods.base import CovarianceOptions
from overedit.editing.methods.locate_then_edit.contexts import ContextOptions
from overedit.editing.methods.locate_then_edit.covariance import SecondMoment
from overedit.editing.methods.locate_then_edit.subjects import PromptSet, encode_prompt_sets
from overedit.editing.methods.locate_then_edit.value_options import ValueOptions
from overedit.editing.methods.registry import METHODS
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.weights import LowRank, WeightUpdate
from overedit.editing.requests import EditRequest
from tests.support.triangles import symmetric

MODELS = ("tiny-llama", "tiny-gpt2")
UNREAD = CovarianceOptions(corpus="none")


class GoldenCase:
    """A case of one method on one model."""

    def __init__(self, folder: Path, method: str, model: str, part: tuple[str, ...] = ()) -> None:
        everything = json.loads((folder / method / "case.json").read_text())
        self.content: dict[str, Any] = everything["models"][model]
        layout = self.content["weight_layout"]
        for name in part:
            self.content = self.content[name]
        self.tensors = load_file(folder / method / f"{model}.safetensors")
        self.model = AutoModelForCausalLM.from_pretrained(folder / "models" / model)
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "models" / model)
        self.hparams = self.content["hparams"]
        groups = [[group] if isinstance(group, str) else group for group in self.content["context_templates"]]
        self.templates = tuple(map(tuple, groups))
        self.sites = tuple(f"{layer}.down_proj" for layer in self.hparams["layers"])
        anatomy = Anatomy.of(self.model)
        self.modules = {site: anatomy.site_module(site) for site in self.sites}
        moments = load_file(folder / "covariance" / f"{model}.safetensors")
        self.covariance = {
            site: SecondMoment(symmetric(moments[module]).double(), 1, 0.0) for site, module in self.modules.items()
        }
        self.in_out = layout == "(in,out)"

    def scale_covariance(self, thresholds: list[float]) -> None:
        """Scale each layer's covariance, so that the first layer's threshold of eigenvalues is right for all."""
        for site, threshold in zip(self.sites, thresholds, strict=True):
            scaled_II = self.covariance[site].matrix_II * (thresholds[0] / threshold)
            self.covariance[site] = SecondMoment(scaled_II, 1, 0.0)

    def requests(self, rows: list[dict[str, Any]] | None = None) -> list[EditRequest]:
        given = [row.get("request", row) for row in rows or self.content["requests"]]
        return [
            EditRequest(
                case_id=str(row["case_id"]),
                prompt=row["prompt"].format(row["subject"]),
                subject=row["subject"],
                target_new=row["target_new"] if isinstance(row["target_new"], str) else row["target_new"]["str"],
            )
            for row in given
        ]

    def config(self, method: str, *, stop: dict[str, Any] | None = None, **more: Any) -> Any:
        values = ValueOptions(
            num_steps=self.hparams["v_num_grad_steps"],
            learning_rate=self.hparams["v_lr"],
            weight_decay=self.hparams["v_weight_decay"],
            kl_factor=self.hparams["kl_factor"],
            clamp_norm_factor=self.hparams["clamp_norm_factor"],
            **stop or {},
        )
        return METHODS[method].config(
            layers=tuple(self.hparams["layers"]),
            values=values,
            contexts=ContextOptions(templates=self.templates),
            covariance=UNREAD,
            **more,
        )

    def run(self, method: str, requests: list[EditRequest], config: Any, state: Any = None) -> Any:
        return METHODS[method].function(
            self.model, self.tokenizer, requests, config, state or {}, covariance=self.covariance
        )

    def prompt_sets(self, rows: list[dict[str, Any]] | None = None) -> list[PromptSet]:
        return encode_prompt_sets(self.model, self.tokenizer, self.requests(rows), self.templates)

    def earlier_keys(self, module: str, batch: int) -> torch.Tensor:
        """AlphaEdit's memory after a batch: the sum of K K^T of all batches so far."""
        keys = torch.cat([self.tensors[f"b{past}.{module}.K"].double() for past in range(batch + 1)], dim=1)
        return keys @ keys.T

    def stored(self, matrix_OI: torch.Tensor) -> torch.Tensor:
        """In the layout of the stored weight."""
        return matrix_OI.T if self.in_out else matrix_OI


def relative(seen: torch.Tensor, expected: torch.Tensor) -> float:
    return float((seen.double() - expected.double()).norm() / expected.double().norm())


def dense(update: WeightUpdate, name: str) -> torch.Tensor:
    change = update[name]
    assert isinstance(change, LowRank)
    return change.left.double() @ change.right.double()
