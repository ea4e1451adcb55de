"""Methods that remember earlier batches, and BLUE, against the numbers of published implementations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from overedit.editing.methods.base import EditResult
from overedit.editing.methods.locate_then_edit.anchor import anchored, mean_norm
from overedit.editing.methods.locate_then_edit.keys import SubjectActivations
from overedit.editing.methods.locate_then_edit.value_options import NormAnchor
from overedit.editing.methods.locate_then_edit.values import optimize_values
from overedit.editing.model.weights import apply_update
from tests.support.golden_cases import MODELS, GoldenCase, dense, relative

pytestmark = pytest.mark.parametrize("model", MODELS)


def edited(
    case: GoldenCase, method: str, config: Any, batches: list[Any]
) -> tuple[dict[str, torch.Tensor], EditResult]:
    """The change of each module's weight over all batches, and the last batch's result."""
    total: dict[str, torch.Tensor] = {}
    state: dict[str, torch.Tensor] = {}
    for requests in batches:
        result = case.run(method, requests, config, state)
        apply_update(case.model, result.update)
        state = result.state
        for module in case.modules.values():
            change = dense(result.update, f"{module}.weight")
            total[module] = total[module] + change if module in total else change
    return total, result


@pytest.mark.parametrize(("reading", "compat"), [("as_coded", "rlsedit-6688b89"), ("paper_run", "none")])
def test_rlsedit(golden: Path, model: str, reading: str, compat: str) -> None:
    case = GoldenCase(golden, "rlsedit", model)
    weight, ridge = case.hparams["mom2_update_weight"], case.hparams["lambda_reg"]
    config = case.config("rlsedit", covariance_weight=weight, ridge=ridge, compat=compat)
    batches = [case.requests(batch["requests"]) for batch in case.content["as_coded"]["batches"]]
    total, _ = edited(case, "rlsedit", config, batches)
    prefix = "paper_run." if reading == "paper_run" else ""
    tolerance = 1e-2 if (reading, model) == ("as_coded", "tiny-llama") else 1e-3
    for module, change in total.items():
        assert relative(change, case.tensors[f"{prefix}b2.{module}.weight_delta_total"]) < tolerance


def test_encore(golden: Path, model: str) -> None:
    case = GoldenCase(golden, "encore", model)
    stop = {"stop_after_hits": -case.hparams["prob_cutoff"], "compat": "encore-6e3ba9a"}
    weight, ridge = case.hparams["mom2_update_weight"], case.hparams["update_norm_lambda"]
    config = case.config("memit_seq", stop=stop, covariance_weight=weight, ridge=ridge)
    batches = [case.requests(batch["requests"]) for batch in case.content["batches"]]
    first = case.run("memit_seq", batches[0], config)
    total, last = edited(case, "memit_seq", config, batches)
    for module, change in total.items():
        assert relative(change, case.tensors[f"b1.{module}.weight_delta_total"]) < 1e-3
    updates = [batch["optimiser_steps"] for batch in case.content["batches"]]
    assert min(min(steps) for steps in updates) < case.hparams["v_num_grad_steps"] - 1, "the rule stops some"
    for result, steps in zip((first, last), updates, strict=True):
        assert result.log["value/steps"] - 1 == pytest.approx(sum(steps) / len(steps))


def test_betaedit(golden: Path, model: str) -> None:
    case = GoldenCase(golden, "betaedit", model)
    hparams, size = case.hparams, case.hparams["bs"]
    config = case.config(
        "betaedit",
        covariance_weight=hparams["lambda1"],
        ridge=hparams["lambda2"],
        refresh_every=hparams["tau"],
        threshold=hparams["nullspace_threshold"],
    )
    requests = case.requests()
    batches = [requests[first : first + size] for first in range(0, len(requests), size)]
    total, last = edited(case, "betaedit", config, batches)
    bases = [last.state[f"{site}.null_basis"].shape[1] for site in case.sites]
    assert bases == case.content["batches"][-1]["null_dim"]
    for module, change in total.items():
        assert relative(change, case.tensors[f"b3.{module}.weight_delta_total"]) < 2e-3


def test_blue_over_memit(golden: Path, model: str) -> None:
    case = GoldenCase(golden, "blue", model, ("bases", "memit"))
    config = case.config("memit", covariance_weight=case.hparams["mom2_update_weight"], distribution="own")
    total, _ = edited(case, "memit", config, [case.requests(case.content["batches"][0]["requests"])])
    for module, change in total.items():
        assert relative(change, case.tensors[f"memit.b0.{module}.weight_delta_this_batch"]) < 1e-3


def test_blue_over_alphaedit(golden: Path, model: str) -> None:
    """The recorded thresholds differ by layer, so each covariance is scaled to have the first layer's."""
    case = GoldenCase(golden, "blue", model, ("bases", "alphaedit"))
    thresholds = case.content["nullspace_threshold_per_layer"]
    case.scale_covariance(thresholds)
    config = case.config("alphaedit", threshold=thresholds[0], ridge=case.hparams["L2"], distribution="own")
    batches = [case.requests(batch["requests"]) for batch in case.content["batches"]]
    total, _ = edited(case, "alphaedit", config, batches)
    for module, change in total.items():
        assert relative(change, case.tensors[f"alphaedit.b1.{module}.weight_delta_total"]) < 1e-3


def test_one_layer_of_blue_is_memit_at_that_layer(golden: Path, model: str) -> None:
    case = GoldenCase(golden, "blue", model, ("bases", "memit"))
    requests = case.requests(case.content["batches"][0]["requests"])
    config = case.config("memit", covariance_weight=20.0).at_site(case.sites[0])
    plain, own = (
        case.run("memit", requests, config.model_copy(update={"distribution": how})) for how in ("spread", "own")
    )
    module = case.modules[case.sites[0]]
    assert torch.equal(dense(plain.update, f"{module}.weight"), dense(own.update, f"{module}.weight"))


@pytest.mark.parametrize("run", ["anchor_official", "anchor_small"])
def test_nas_over_alphaedit(golden: Path, model: str, run: str) -> None:
    """The recorded thresholds differ by layer, so each covariance is scaled to have the first layer's."""
    case = GoldenCase(golden, "nas", model, ("runs", run))
    thresholds = json.loads((golden / "nas/case.json").read_text())["models"][model]["nullspace_threshold_per_layer"]
    case.scale_covariance(thresholds)
    config = case.config(
        "alphaedit",
        stop={"anchor": {"norm": case.content["mean_vstar_norm"]}},
        threshold=thresholds[0],
        ridge=case.hparams["L2"],
    )
    batches = [case.requests(batch["requests"]) for batch in case.content["batches"]]
    total, last = edited(case, "alphaedit", config, batches)
    assert last.log["dropped"] == sum(case.content["batches"][1]["skipped"])
    for module, change in total.items():
        assert relative(change, case.tensors[f"{run}.b1.{module}.weight_delta_total"]) < 5e-4


def test_the_mean_norm_of_nas(golden: Path, model: str) -> None:
    """Each value is optimized for the bare prompt, and one of 24 is left out of the mean."""
    case = GoldenCase(golden, "nas", model, ("runs", "anchor_official"))
    recorded = json.loads((golden / "nas/case.json").read_text())["models"][model]["norm_statistics"]
    case.templates = (("{}",),)
    config, sets = case.config("alphaedit"), case.prompt_sets(recorded["requests"])
    values = optimize_values(case.model, config.value_site, sets, config.values)
    subjects = SubjectActivations(case.model, sets, case.templates, 8192)
    outputs_ND = subjects.outputs(f"{config.layers[-1]}.mlp", in_contexts=False).T
    norms_N = (outputs_ND + values.delta_ND).norm(dim=1)
    assert norms_N.tolist() == pytest.approx(recorded["norms"], rel=1e-4)
    assert mean_norm(norms_N, 0.05) == pytest.approx(recorded["mean_after_dropping_top"], rel=1e-5)
    _, state = anchored(values, outputs_ND, NormAnchor(), {}, config.value_site)
    assert float(state[f"{config.value_site}.anchor_norm"]) == pytest.approx(case.content["mean_vstar_norm"], rel=1e-5)
