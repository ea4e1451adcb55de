"""CrispEdit: what it is with nothing and with everything frozen, its turns, and its settings."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, PreTrainedModel

from overedit.editing.methods.base import CovarianceOptions, EditResult, TurnSize
from overedit.editing.methods.crispedit import CrispEdit, crispedit
from overedit.editing.methods.fine_tuning.tuner import tuning
from overedit.editing.methods.locate_then_edit.covariance import SecondMoment
from overedit.editing.methods.locate_then_edit.curvature import curvature_of_texts, factor_names
from overedit.editing.methods.locft_bf import LocftBf, locft_bf
from overedit.editing.model.shape import ModelShape
from overedit.editing.model.weights import applied, apply_update
from overedit.flows.config.models import BenchmarkConfig
from tests.support.published_shapes import llama_3_8b
from tests.support.teachable_models import (
    DOWN,
    WORDS,
    byte_tokenizer,
    greedy,
    samples_of,
    some_requests,
    teachable,
)

TEXTS = [f"{i} bottles of {word}, {i * i} in all" for i, word in enumerate(WORDS * 4)]
SITE = "1.down_proj"
NOTHING = CovarianceOptions(corpus="none")
SMALL: dict[str, Any] = {"learning_rate": 1e-3, "batch_size": 3, "epochs": 3}


def config(**more: Any) -> CrispEdit:
    return CrispEdit(**({"sites": (SITE,), "covariance": NOTHING, "energy": 0.8} | SMALL | more))


def factors(model: PreTrainedModel, sites: tuple[str, ...] = (SITE,)) -> dict[str, SecondMoment]:
    names = [name for site in sites for name in factor_names(site)]
    return curvature_of_texts(model, byte_tokenizer(), TEXTS, names, max_length=64)


def flat(model: PreTrainedModel) -> dict[str, SecondMoment]:
    """The same curvature in all directions."""
    return {name: SecondMoment(torch.eye(len(m.matrix_II)).double(), 9, 0.0) for name, m in factors(model).items()}


def edit(model: PreTrainedModel, covariance: dict[str, SecondMoment], *, requests: int = 7, **more: Any) -> EditResult:
    some = some_requests(requests)
    return crispedit(model, byte_tokenizer(), some, config(**more), {}, covariance=covariance, seed=4)


@pytest.mark.parametrize("project", ["gradient", "step"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_with_nothing_frozen_it_is_locft_bf_bit_for_bit(family: str, project: Literal["gradient", "step"]) -> None:
    model = teachable(family)
    plain = locft_bf(model, byte_tokenizer(), some_requests(7), LocftBf(site=SITE, **SMALL), {}, seed=4)
    found = edit(model, factors(model), energy=0.0, project=project, loss_average="sample")
    name = DOWN[family]
    assert torch.equal(found.update[name].tensor, plain.update[name].tensor)
    assert plain.log.items() <= found.log.items()
    assert not torch.equal(
        edit(model, factors(model), loss_average="sample").update[name].tensor, plain.update[name].tensor
    )


@pytest.mark.parametrize("project", ["gradient", "step"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_with_everything_frozen_no_weight_moves(family: str, project: Literal["gradient", "step"]) -> None:
    model = teachable(family)
    result = edit(model, flat(model), energy=0.5, project=project)
    assert result.log[f"{SITE}/frozen"] == 1
    assert torch.equal(result.update[DOWN[family]].tensor, model.get_parameter(DOWN[family]).detach())


@pytest.mark.parametrize("project", ["gradient", "step"])
def test_the_requests_are_learned(project: Literal["gradient", "step"]) -> None:
    model, tokenizer, requests = teachable("llama"), byte_tokenizer(), some_requests(4)
    sites = ("1.up_proj", "1.down_proj", "2.down_proj")
    settings = config(sites=sites, learning_rate=0.01, epochs=60, energy=0.3, project=project)
    result = crispedit(model, tokenizer, requests, settings, {}, covariance=factors(model, sites))
    assert float(result.log["last_epoch_loss"]) < 0.1 * float(result.log["first_epoch_loss"])
    assert result.log["prefix"] == "layer", "two of the sites are in the lowest layer"
    with applied(model, result.update):
        answers = [greedy(model, tokenizer, request, 20) for request in requests]
    assert answers == [f" {request.target_new}<|eos|>" for request in requests]


def test_the_gradients_of_several_sites_are_autograds() -> None:
    model, twin = teachable("gpt2"), teachable("gpt2")
    sample = samples_of(model)[3]
    labels = torch.tensor([[-100] * (sample.positions[0] + 1) + list(sample.labels)])
    twin(input_ids=torch.tensor([sample.ids]), labels=labels).loss.backward()
    for sites, start in ((("1.up_proj", "1.down_proj"), "layer"), (("2.up_proj", "1.down_proj"), "module")):
        with tuning(model, [sample], config(sites=sites)) as tuner:
            assert tuner.prefix.start == start
            tuner.loss([0], [1 / len(sample.labels)]).backward()
            for name, value in tuner.values.items():
                expected = twin.get_parameter(name).grad
                assert value.grad is not None and expected is not None
                assert float((value.grad - expected).norm() / expected.norm()) < 1e-5


def test_what_earlier_turns_wrote_is_frozen_for_later_ones() -> None:
    model = teachable("llama")
    covariance = factors(model)
    whole = {name: len(moment.matrix_II) for name, moment in covariance.items()}
    first = edit(model, covariance)
    assert {name: len(first.state[name]) for name in whole} == whole
    assert all(tensor.dtype == torch.float32 for name, tensor in first.state.items() if name != "edit_tokens")
    assert int(first.state["edit_tokens"]) == sum(len(sample.ids) - 1 for sample in samples_of(model))
    apply_update(model, first.update)
    later = some_requests(10)[7:]

    def second(state: dict[str, torch.Tensor]) -> EditResult:
        return crispedit(model, byte_tokenizer(), later, config(), state, covariance=covariance, seed=5)

    carried, forgotten = second(first.state), second({})
    assert carried.log[f"{SITE}/frozen"] != forgotten.log[f"{SITE}/frozen"]
    assert int(carried.state["edit_tokens"]) > int(forgotten.state["edit_tokens"])
    assert int(carried.state["steps"]) == int(first.state["steps"]) + int(forgotten.state["steps"])


def test_a_model_that_training_destroys_is_returned_as_it_is() -> None:
    model = teachable("llama")
    covariance = factors(model)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    result = edit(model, covariance)
    assert not result.update[DOWN["llama"]].tensor.isfinite().all()
    assert "edit_tokens" not in result.state


def test_requests_in_skipped_batches_are_dropped() -> None:
    model = teachable("llama")
    result = edit(model, factors(model), skip_batch_below=1e9, stop_epoch_below=0)
    assert (result.log["dropped"], result.log["skipped_steps"], result.log[f"{SITE}/leak"]) == (7, 9, 0)
    assert not any(result.state[f"{SITE}.{name}_moment"].any() for name in ("first", "second"))


def test_the_energy_has_no_default() -> None:
    method = {"method": "crispedit"}
    run: dict[str, Any] = {"name": "r", "model": "meta-llama/Meta-Llama-3-8B-Instruct", "dataset": {"name": "zsre"}}
    with pytest.raises(ValidationError, match="energy"):
        BenchmarkConfig.model_validate(run | {"methods": [method]})
    covariance = {"corpus": "other/corpus"}
    [filled] = BenchmarkConfig.model_validate(
        run | {"methods": [method | {"energy": 0.8}], "covariance": covariance}
    ).methods
    assert isinstance(filled, CrispEdit)
    assert (filled.energy, filled.sites, filled.epochs, filled.batch_size) == (
        0.8,
        tuple(f"{layer}.down_proj" for layer in range(19, 24)),
        25,
        32,
    )
    assert filled.covariance == CovarianceOptions(corpus="other/corpus", num_samples=1000)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sites": ("1.mlp",)}, "'1.mlp' is not accepted: sites are single projections"),
        ({"sites": (SITE, SITE)}, "'1.down_proj' is not accepted: .*each once"),
        ({"energy": 1.1}, "energy"),
        ({"project": "weight"}, "'gradient' or 'step'"),
    ],
)
def test_settings_that_are_not_accepted(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**given)
    with pytest.raises(ValueError, match=r"'1.mlp' is not accepted"):
        config().at_site("1.mlp")


def test_the_state_of_a_published_model() -> None:
    """At 8B shapes: A and B 0.9 GB a site, Adam's moments 0.5 GB."""
    with torch.device("meta"):
        shape = ModelShape.of(AutoModelForCausalLM.from_config(llama_3_8b()), itemsize=2)
    sites = tuple(f"{layer}.down_proj" for layer in range(19, 24))
    work = config(sites=sites).work(shape, TurnSize(100, 15, 5))
    assert work.state_bytes / 5e9 == pytest.approx(0.889 + 0.470, abs=2e-3)
    assert 25e9 < work.num_bytes < 50e9
    by_step = config(sites=sites, project="step").work(shape, TurnSize(100, 15, 5))
    turns = 2 * 14336 * 4096 * (14336 + 4096) * 5 * 3 * 34
    assert work.operations - by_step.operations == pytest.approx(turns, rel=1e-9), "one change of coordinates less"
