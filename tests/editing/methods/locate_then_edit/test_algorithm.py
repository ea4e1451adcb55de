"""The equations of the locate-then-edit methods, on random models of both weight orientations, in float64."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from overedit.editing.methods.base import CovarianceOptions, EditResult
from overedit.editing.methods.locate_then_edit.algorithm import LocateThenEdit
from overedit.editing.methods.locate_then_edit.covariance import SecondMoment, second_moments
from overedit.editing.methods.locate_then_edit.diagnostics import diagnostics
from overedit.editing.methods.locate_then_edit.distribution import SHARES
from overedit.editing.methods.locate_then_edit.keys import SubjectActivations
from overedit.editing.methods.locate_then_edit.solvers import KeyTargets, Solution
from overedit.editing.methods.locate_then_edit.subjects import PromptSet, encode_prompt_sets
from overedit.editing.methods.locate_then_edit.value_options import ValueOptions
from overedit.editing.methods.locate_then_edit.values import optimize_values
from overedit.editing.methods.registry import METHODS
from overedit.editing.model.anatomy import Anatomy, stores_in_out
from overedit.editing.model.weights import LowRank, applied, checksum
from overedit.editing.requests import EditRequest
from tests.support.hooks import num_hooks
from tests.support.locate_then_edit import BARE, CONTEXTS, requests
from tests.support.teachable_models import WORDS, byte_tokenizer
from tests.support.tiny_models import tiny

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "gpt2": ("gpt2", {}),
    "square llama": ("llama", {"intermediate_size": 32}),
    "square gpt2": ("gpt2", {"n_inner": 32}),
}


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    family, settings = SHAPES[request.param]
    return tiny(family, dtype=torch.float64, **settings)


def covariance(model: PreTrainedModel, sites: tuple[str, ...]) -> dict[str, SecondMoment]:
    texts = [f"{i} bottles of {word}, {i * i} in all; {word} again" for i, word in enumerate(WORDS * 8)]
    return second_moments(model, byte_tokenizer(), texts, sites, max_length=60)


def config_of(name: str, layers: tuple[int, ...] = (1,), templates: Any = CONTEXTS, **more: Any) -> LocateThenEdit:
    common = {"values": {"num_steps": 6}, "contexts": {"templates": templates}, "covariance": {"corpus": "none"}}
    config = METHODS[name].config(layers=layers, **(common | more))
    assert isinstance(config, LocateThenEdit)
    return config


def run(
    name: str,
    model: PreTrainedModel,
    config: LocateThenEdit,
    asked: list[EditRequest],
    state: Mapping[str, torch.Tensor] | None = None,
) -> EditResult:
    function = METHODS[name].function
    return function(model, byte_tokenizer(), asked, config, state or {}, covariance=covariance(model, config.sites))


class Wanted:
    """The terms of the equations, computed independently of the method."""

    def __init__(self, model: PreTrainedModel, config: LocateThenEdit, asked: list[EditRequest]) -> None:
        templates = config.contexts.templates
        assert templates is not None
        self.model, self.config = model, config
        self.prompt_sets: list[PromptSet] = encode_prompt_sets(model, byte_tokenizer(), asked, templates)
        self.subjects = SubjectActivations(model, self.prompt_sets, templates, 10_000)
        values = optimize_values(model, config.value_site, self.prompt_sets, config.values)
        self.values_ON = (values.initial_ND + values.delta_ND).double().T


def dense(model: PreTrainedModel, result: EditResult, site: str) -> torch.Tensor:
    """Delta, (out, in)."""
    anatomy = Anatomy.of(model)
    change = result.update[anatomy.site_parameters(site)[0]]
    assert isinstance(change, LowRank)
    matrix = change.left @ change.right
    return matrix.T if stores_in_out(model.get_submodule(anatomy.site_module(site))) else matrix


def test_rome_gives_the_bare_key_its_value(model: PreTrainedModel) -> None:
    config, asked = config_of("rome"), requests(1)
    wanted = Wanted(model, config, asked)
    with applied(model, run("rome", model, config, asked).update):
        seen = wanted.subjects.outputs("1.mlp", in_contexts=False)
    assert float((seen - wanted.values_ON).abs().max()) < 1e-8


def test_r_rome_gives_the_mean_key_its_value(model: PreTrainedModel) -> None:
    config, asked = config_of("r_rome"), requests(1)
    wanted = Wanted(model, config, asked)
    with applied(model, run("r_rome", model, config, asked).update):
        mean = wanted.subjects.outputs("1.mlp", in_contexts=True)  # the projection is linear: the mean key's output
        bare = wanted.subjects.outputs("1.mlp", in_contexts=False)
    assert float((mean - wanted.values_ON).abs().max()) < 1e-8
    assert float((bare - wanted.values_ON).abs().max()) > 1e-3


@pytest.mark.parametrize("templates", [BARE, CONTEXTS])
def test_r_rome_is_rome_in_one_context_and_only_there(model: PreTrainedModel, templates: Any) -> None:
    asked = requests(1)
    one, other = (
        dense(model, run(n, model, config_of(n, templates=templates), asked), "1.down_proj") for n in ("rome", "r_rome")
    )
    assert torch.allclose(one, other, rtol=1e-8, atol=1e-12) == (templates == BARE)


@pytest.mark.parametrize("count", [1, 4])
def test_emmet_without_a_ridge_is_exact_at_its_keys(model: PreTrainedModel, count: int) -> None:
    config, asked = config_of("emmet", templates=BARE, ridge=0.0, value_at="mlp"), requests(count)
    wanted = Wanted(model, config, asked)
    with applied(model, run("emmet", model, config, asked).update):
        seen = wanted.subjects.outputs("1.mlp", in_contexts=False)
    assert float((seen - wanted.values_ON).abs().max()) < 1e-8


def test_emmet_of_one_edit_is_rome(model: PreTrainedModel) -> None:
    """Also with the published ridge, which is for more than one edit."""
    asked = requests(1)
    emmet = run("emmet", model, config_of("emmet", templates=BARE, value_at="mlp", values=ROME_VALUES), asked)
    rome = run("rome", model, config_of("rome", templates=BARE, values=ROME_VALUES), asked)
    one, other = dense(model, emmet, "1.down_proj"), dense(model, rome, "1.down_proj")
    torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


ROME_VALUES = {"num_steps": 6, "clamp_norm_factor": 4}


def test_memit_satisfies_its_normal_equations(model: PreTrainedModel) -> None:
    config, asked = config_of("memit", layers=(0, 1), covariance_weight=3.0), requests()
    wanted = Wanted(model, config, asked)
    result, c0 = run("memit", model, config, asked), covariance(model, config.sites)
    anatomy = Anatomy.of(model)
    written: dict[str, Any] = {}
    for left, site in ((2, "0.down_proj"), (1, "1.down_proj")):
        with applied(model, written):
            keys = wanted.subjects.keys(site).mean_IN
            residual = (wanted.values_ON - wanted.subjects.outputs("1.layer", in_contexts=False)) / left
        gram = 3.0 * c0[site].matrix_II + keys @ keys.T
        expected = residual @ keys.T
        assert float((dense(model, result, site) @ gram - expected).norm() / expected.norm()) < 1e-9
        name = anatomy.site_parameters(site)[0]
        written[name] = result.update[name]


def test_alphaedit_changes_nothing_that_is_preserved(model: PreTrainedModel) -> None:
    sites = ("0.down_proj", "1.down_proj")
    middle = float(covariance(model, sites)["1.down_proj"].eigen.eigenvalues.median())
    config = config_of("alphaedit", layers=(0, 1), threshold=middle, ridge=1e-3)
    result = run("alphaedit", model, config, requests())
    c0 = covariance(model, sites)
    for site in sites:
        delta, moment = dense(model, result, site), c0[site]
        kept = moment.eigen.eigenvectors[:, moment.eigen.eigenvalues >= middle]
        assert kept.shape[1] > 0
        assert float((delta @ kept).norm()) < 1e-9 * float(delta.norm())
        spread = float(torch.trace(delta @ moment.matrix_II @ delta.T).sqrt() / delta.norm())
        assert spread <= middle**0.5


def test_alphaedit_remembers_the_keys_of_the_turns_before(model: PreTrainedModel) -> None:
    """The keys as they are after the turn; and they hold back the next turn's update at them."""
    config = config_of("alphaedit", threshold=1e6, ridge=1e-6, templates=BARE)
    first, later = requests(2), requests(4)[2:]
    result = run("alphaedit", model, config, first)
    wanted = Wanted(model, config, first)
    with applied(model, result.update):
        keys = wanted.subjects.keys("1.down_proj").mean_IN
        torch.testing.assert_close(result.state["1.down_proj.earlier_keys"], keys @ keys.T, rtol=1e-9, atol=1e-12)
        held = dense(model, run("alphaedit", model, config, later, result.state), "1.down_proj") @ keys
        free = dense(model, run("alphaedit", model, config, later), "1.down_proj") @ keys
    assert float(held.norm()) < 0.01 * float(free.norm())


@pytest.mark.parametrize("name", ["rome", "r_rome", "memit", "emmet", "alphaedit"])
def test_the_rank_is_at_most_the_number_of_edits(model: PreTrainedModel, name: str) -> None:
    more = {"threshold": 1e6} if name == "alphaedit" else {}
    result = run(name, model, config_of(name, **more), requests(3))
    assert 0 < int(torch.linalg.matrix_rank(dense(model, result, "1.down_proj"))) <= 3


@pytest.mark.parametrize("name", ["rome", "r_rome", "memit", "emmet", "alphaedit"])
@pytest.mark.parametrize("distribution", ["spread", "root"])
def test_every_objective_goes_with_every_distribution(name: str, distribution: str) -> None:
    model = tiny("llama")
    more = {"threshold": 1e6} if name == "alphaedit" else {}
    result = run(name, model, config_of(name, layers=(0, 1), distribution=distribution, **more), requests(2))
    assert len(result.update) == 2
    assert all(change.left.norm() > 0 for change in result.update.values() if isinstance(change, LowRank))


def test_the_shares_add_up_to_the_residual() -> None:
    """Each layer takes its share of what is left; the last one all of it."""
    for distribution, layers in (("single", 1), ("spread", 5), ("root", 5)):
        left = 1.0
        for remaining in range(layers, 0, -1):
            left -= left * SHARES[distribution](remaining)  # type: ignore[index]
        assert left == pytest.approx(0, abs=1e-15)
    even, left = [], 1.0
    for remaining in range(4, 0, -1):
        even.append(left * SHARES["spread"](remaining))
        left -= even[-1]
    assert even == pytest.approx([0.25] * 4)


def test_a_turn_of_rome_is_its_edits_one_after_the_other() -> None:
    model, config, asked = tiny("llama"), config_of("rome"), requests(3)
    together = run("rome", model, config, asked).update
    (name,) = together
    c0 = covariance(model, config.sites)
    function, tokenizer = METHODS["rome"].function, byte_tokenizer()
    with applied(model, together):
        expected = model.get_parameter(name).detach().clone()
    one = function(model, tokenizer, asked[:1], config, {}, covariance=c0)
    with applied(model, one.update):
        two = function(model, tokenizer, asked[1:2], config, {}, covariance=c0)
        with applied(model, two.update):
            three = function(model, tokenizer, asked[2:], config, {}, covariance=c0)
            with applied(model, three.update):
                torch.testing.assert_close(model.get_parameter(name).detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["memit", "emmet", "alphaedit"])
def test_batches_of_a_turn_are_turns_of_their_own(name: str) -> None:
    """With the state handed on, and EMMET's ridge only where a batch has more than one edit."""
    more = {"threshold": 1e6} if name == "alphaedit" else {}
    model, asked = tiny("llama", dtype=torch.float64), requests(3)
    together = run(name, model, config_of(name, batch_size=2, **more), asked)
    config = config_of(name, **more)
    first = run(name, model, config, asked[:2])
    c0 = covariance(model, config.sites)
    with applied(model, first.update):
        second = METHODS[name].function(model, byte_tokenizer(), asked[2:], config, first.state, covariance=c0)
    expected = dense(model, first, "1.down_proj") + dense(model, second, "1.down_proj")
    torch.testing.assert_close(dense(model, together, "1.down_proj"), expected, rtol=1e-8, atol=1e-10)
    assert together.state.keys() == second.state.keys()
    for key, tensor in second.state.items():
        torch.testing.assert_close(together.state[key], tensor)


def test_equal_subjects_are_solved_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    model, config = tiny("llama"), config_of("emmet", templates=BARE, ridge=0.0)
    twice = [requests(1)[0], requests(1)[0].model_copy(update={"case_id": "again", "target_new": "May"})]
    with caplog.at_level(logging.WARNING):
        result = run("emmet", model, config, twice)
    assert result.log["1.down_proj/pseudo_inverse"] == 1
    assert "equal" in caplog.text
    assert dense(model, result, "1.down_proj").isfinite().all()


def test_the_log_says_how_far_the_update_reaches() -> None:
    model, config, asked = tiny("llama", dtype=torch.float64), config_of("memit", covariance_weight=2.0), requests()
    wanted, c0 = Wanted(model, config, asked), covariance(model, config.sites)["1.down_proj"].matrix_II
    result = run("memit", model, config, asked)
    delta = dense(model, result, "1.down_proj")
    residual = wanted.values_ON - wanted.subjects.outputs("1.layer", in_contexts=False)
    missing = residual - delta @ wanted.subjects.keys("1.down_proj").mean_IN
    expected = {
        "residual": residual.norm(dim=0).mean(),
        "memorization": missing.norm(dim=0).mean(),
        "preservation": torch.trace(delta @ c0 @ delta.T).sqrt(),
        "update_norm": delta.norm(),
    }
    for quantity, value in expected.items():
        assert result.log[f"1.down_proj/{quantity}"] == pytest.approx(float(value), rel=1e-6), quantity


def test_many_edits_are_measured_by_the_update_itself() -> None:
    """Nothing of the size of the edits squared is made where the update is smaller."""
    generator = torch.Generator().manual_seed(0)
    residual, weights, keys, half = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((4, 50), (50, 6), (6, 50), (6, 6))
    )
    moment = SecondMoment(half @ half.T, 100, 0.1)
    with Shapes() as shapes:
        found = diagnostics(KeyTargets(keys, residual), moment, Solution(residual, weights, 1.0))
    delta = residual @ weights
    assert found["update_norm"] == pytest.approx(float(delta.norm()))
    assert found["preservation"] == pytest.approx(float(torch.trace(delta @ moment.matrix_II @ delta.T).sqrt()))
    assert found["memorization"] == pytest.approx(float((residual - delta @ keys).norm(dim=0).mean()))
    assert shapes.largest <= 6 * 50


class Shapes(TorchDispatchMode):
    """The largest tensor that operations gave, in elements."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.largest = max(self.largest, result.numel())
        return result


@pytest.mark.parametrize("name", ["rome", "r_rome", "memit", "emmet", "alphaedit"])
def test_an_error_in_the_middle_leaves_the_model_as_it_was(name: str) -> None:
    """The second layer has no covariance: the first has been written by then."""
    model = tiny("llama")
    bits = {key: checksum(tensor) for key, tensor in model.state_dict().items()}
    more = {"threshold": 1e6} if name == "alphaedit" else {}
    config = config_of(name, layers=(0, 1), distribution="spread", **more)
    missing = {"0.down_proj": covariance(model, config.sites)["0.down_proj"]}
    with pytest.raises(KeyError):
        METHODS[name].function(model, byte_tokenizer(), requests(), config, {}, covariance=missing)
    assert {key: checksum(tensor) for key, tensor in model.state_dict().items()} == bits
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert num_hooks(model) == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"layers": (3, 2)}, r"layers: \[3, 2\] must increase"),
        ({"layers": (2, 2)}, r"layers: \[2, 2\] must increase"),
        ({"layers": (1, 2), "distribution": "single"}, "'single' edits one layer, layers names 2"),
        ({"layers": ()}, "at least 1 item"),
        ({"layers": (1,), "values": {"num_steps": 0}}, "num_steps"),
        ({"layers": (1,), "part": "gate_proj"}, "part\n.*'down_proj' or 'o_proj'"),
        ({"layers": (1,), "covariance_weight": float("inf")}, "covariance_weight\n.*finite"),
        ({"layers": (1,), "values": {"learning_rate": float("inf")}}, "values.learning_rate\n.*finite"),
        ({"layers": (1,), "contexts": {"starts": ("",)}}, "starts.0\n.*at least 1 character"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        METHODS["memit"].config(**settings)


def test_a_group_given_in_part_keeps_the_methods_other_defaults() -> None:
    rome = METHODS["rome"].config(layers=(1,), values={"learning_rate": 0.1})
    assert isinstance(rome, LocateThenEdit)
    assert rome.values == ValueOptions(num_steps=20, clamp_norm_factor=4, learning_rate=0.1)
    memit = METHODS["memit"].config(layers=(1,), covariance={"num_samples": 10})
    assert isinstance(memit, LocateThenEdit)
    assert memit.covariance == CovarianceOptions(corpus="wikimedia/wikipedia:20231101.en", num_samples=10)


@pytest.mark.parametrize("name", ["rome", "r_rome", "memit", "emmet", "alphaedit"])
def test_a_preset_is_what_its_own_fields_make(name: str) -> None:
    """A configuration file gets the fields that a preset sets, and the method's defaults for the others."""
    for preset in METHODS[name].presets.values():
        assert METHODS[name].config.model_validate(preset.model_dump(exclude_unset=True)) == preset


def test_a_threshold_below_every_eigenvalue_is_named() -> None:
    with pytest.raises(ValueError, match=r"threshold: no eigenvalue of 1\.down_proj's covariance is below 1e-30"):
        run("alphaedit", tiny("llama", dtype=torch.float64), config_of("alphaedit", threshold=1e-30), [])  # at once


def test_an_anchored_turn_logs_its_norm_and_counts_what_it_gives_up() -> None:
    model, asked = tiny("llama"), requests()
    plain = run("memit", model, config_of("memit", layers=(0, 1)), asked)
    anchored = run("memit", model, config_of("memit", layers=(0, 1), values={"num_steps": 6, "anchor": "nas"}), asked)
    strict = run(
        "memit", model, config_of("memit", layers=(0, 1), values={"num_steps": 6, "anchor": {"norm": 1e-6}}), asked
    )
    assert "value/anchor_norm" not in plain.log
    assert anchored.log["value/anchor_norm"] == float(anchored.state["1.layer.anchor_norm"])
    assert (plain.log["dropped"], anchored.log["dropped"], strict.log["dropped"]) == (0, 0, len(asked))
    assert strict.log["unmoved"] == 0
    assert plain.log["0.down_proj/update_norm"] != anchored.log["0.down_proj/update_norm"]
    assert float(strict.log["0.down_proj/update_norm"]) < 1e-6 * float(plain.log["0.down_proj/update_norm"])
