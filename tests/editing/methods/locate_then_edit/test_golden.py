"""ROME, MEMIT, EMMET and AlphaEdit against the numbers of published implementations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from overedit.editing.methods.locate_then_edit.keys import SubjectActivations
from overedit.editing.methods.locate_then_edit.solvers import KeyTargets, equality, least_squares, null_space, rank_one
from overedit.editing.methods.locate_then_edit.subjects import encode_prompt_sets
from overedit.editing.model.weights import apply_update
from tests.support.golden_cases import MODELS, GoldenCase, dense, relative
from tests.support.triangles import symmetric


@pytest.fixture(params=MODELS)
def model_name(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def test_rome_golden(golden: Path, model_name: str) -> None:
    case = GoldenCase(golden, "rome", model_name)
    config = case.config("rome")
    (module,) = case.modules.values()
    for i, request in enumerate(case.requests()):
        prompt_sets = encode_prompt_sets(case.model, case.tokenizer, [request], case.templates)
        subjects = SubjectActivations(case.model, prompt_sets, case.templates, 8192)
        keys = subjects.keys(case.sites[0])
        assert relative(keys.mean_IN[:, 0], case.tensors[f"r{i}.key_mean"]) < 1e-5
        assert relative(keys.bare_IN[:, 0], case.tensors[f"r{i}.key_prompt"]) < 1e-5
        current = subjects.outputs(config.value_site, in_contexts=False)
        assert relative(current[:, 0], case.tensors[f"r{i}.cur_output"]) < 1e-5
        factor = case.covariance[case.sites[0]].cholesky_II
        solved = rank_one(KeyTargets(keys.mean_IN, current), factor, at_IN=keys.bare_IN)
        direction = solved.weights_NI[0] / solved.weights_NI[0].norm()
        left = case.tensors[f"r{i}.left_vector"].double()
        assert relative(direction * torch.sign(direction @ left), left) < 1e-4
        result = case.run("rome", [request], config)
        seen = dense(result.update, f"{module}.weight")
        expected = torch.outer(case.tensors[f"r{i}.right_vector"], case.tensors[f"r{i}.left_vector"])
        assert relative(seen, case.stored(expected)) < 3e-4


@pytest.mark.parametrize("method", ["memit", "emmet"])
def test_memit_and_emmet_golden(golden: Path, model_name: str, method: str) -> None:
    case = GoldenCase(golden, method, model_name)
    more = {"ridge": case.hparams["emmet_lambda"]} if method == "emmet" else {}
    config = case.config(method, covariance_weight=case.hparams["mom2_update_weight"], **more)
    result = case.run(method, case.requests(), config)
    subjects = SubjectActivations(case.model, case.prompt_sets(), case.templates, 8192)
    tolerance = 1e-3 if (method, model_name) == ("memit", "tiny-gpt2") else 3e-4
    for site, module in case.modules.items():
        keys = subjects.keys(site)
        assert relative(keys.mean_IN, case.tensors[f"{module}.K"]) < 1e-4
        seen = dense(result.update, f"{module}.weight")
        assert relative(seen, case.tensors[f"{module}.weight_delta"]) < tolerance
        apply_update(case.model, {f"{module}.weight": result.update[f"{module}.weight"]})


@pytest.mark.parametrize("method", ["memit", "emmet"])
def test_solutions_from_recorded_keys_and_residuals(golden: Path, model_name: str, method: str) -> None:
    case = GoldenCase(golden, method, model_name)
    for site, module in case.modules.items():
        recorded = {name: case.tensors[f"{module}.{name}"].double() for name in ("K", "residual", "adj_k")}
        memory = KeyTargets(recorded["K"], recorded["residual"])
        factor, weight = case.covariance[site].cholesky_II, case.hparams["mom2_update_weight"]
        if method == "memit":
            solution = least_squares(memory, factor, weight=weight)
        else:
            solution = equality(memory, factor, weight=weight, ridge=case.hparams["emmet_lambda"])
        assert relative(solution.weights_NI.T, recorded["adj_k"]) < 1e-6
        seen = case.stored(solution.residual_ON @ solution.weights_NI)
        assert relative(seen, case.tensors[f"{module}.weight_delta"]) < 1e-6


def test_alphaedit_golden(golden: Path, model_name: str) -> None:
    case = GoldenCase(golden, "alphaedit", model_name)
    threshold, ridge = case.hparams["nullspace_threshold"], case.hparams["L2"]
    config = case.config("alphaedit", threshold=threshold, ridge=ridge)
    state: dict[str, torch.Tensor] = {}
    for number, rows in enumerate(case.content["batches"]):
        result = case.run("alphaedit", case.requests(rows), config, state)
        apply_update(case.model, result.update)
        state = result.state
        for site, module in case.modules.items():
            basis = case.covariance[site].null_space(threshold)
            assert basis.shape[1] == case.content["null_dim"][module]
            assert relative(basis @ basis.T, symmetric(case.tensors[f"P.{module}"])) < 1e-4
            name = f"b{number}.{module}"
            seen = dense(result.update, f"{module}.weight")
            assert relative(seen, case.tensors[f"{name}.weight_delta_this_batch"]) < 5e-4
            assert relative(state[f"{site}.earlier_keys"], case.earlier_keys(module, number)) < 1e-4


def test_null_space_from_recorded_keys_and_residuals(golden: Path, model_name: str) -> None:
    case = GoldenCase(golden, "alphaedit", model_name)
    for site, module in case.modules.items():
        basis = case.covariance[site].null_space(case.hparams["nullspace_threshold"])
        for number in range(2):
            recorded = {n: case.tensors[f"b{number}.{module}.{n}"].double() for n in ("K", "residual")}
            earlier = case.earlier_keys(module, 0) if number else None
            memory = KeyTargets(recorded["K"], recorded["residual"])
            solution = null_space(memory, basis, earlier, ridge=case.hparams["L2"])
            seen = case.stored(solution.residual_ON @ solution.weights_NI)
            assert relative(seen, case.tensors[f"b{number}.{module}.weight_delta_this_batch"]) < 5e-4
