"""Adapters of peft: what they compute is what is merged, with every tuner; their options; and where they are."""

from __future__ import annotations

import ast
import random
import socket
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import PreTrainedModel

from overedit.editing.methods.base import EditResult
from overedit.editing.methods.fine_tuning.adapters import Adapters, seeded
from overedit.editing.methods.fine_tuning.tuner import tuning
from overedit.editing.methods.fine_tuning.tuners import TUNERS, UNMERGEABLE, accepted_options
from overedit.editing.methods.peft import Peft, peft
from overedit.editing.model.hooks import standing_in
from overedit.editing.model.weights import Delta, LowRank, applied
from tests.support.teachable_models import (
    DOWN,
    byte_tokenizer,
    greedy,
    samples_of,
    snapshot,
    some_requests,
    teachable,
    unchanged,
)

SITES = ("1.down_proj", "2.o_proj")
NAMES = {
    "llama": (DOWN["llama"], "model.layers.2.self_attn.o_proj.weight"),
    "gpt2": (DOWN["gpt2"], "transformer.h.2.attn.c_proj.weight"),
}
SMALL: dict[str, dict[str, Any]] = {
    "c3a": {"block_size": 8},
    "fourierft": {"n_frequency": 40},
    "miss": {"r": 8},
    "oft": {"oft_block_size": 8},
    "road": {"group_size": 8},
    "shira": {"r": 2},
    "vblora": {"num_vectors": 16, "vector_length": 8},
    "waveft": {"n_frequency": 40},
}
"""Options that fit matrices of 32 x 48."""
WITH_BIAS = {"adamss", "glora", "ia3", "road"}
"""Tuners that change the bias of a projection that has one."""
FROM_A_CHANGE = {"unilora", "vblora"}
"""Tuners that start from a small random change."""


def edit(model: PreTrainedModel, *, requests: int = 6, seed: int = 0, **settings: Any) -> EditResult:
    quick: dict[str, Any] = {"sites": SITES, "epochs": 3, "batch_size": 3, "learning_rate": 1e-2, "max_steps": 3}
    return peft(model, byte_tokenizer(), some_requests(requests), Peft(**(quick | settings)), {}, seed=seed)


def with_biases(model: PreTrainedModel) -> PreTrainedModel:
    """The biases of new models are 0, which nothing scales."""
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(value, std=0.3, generator=torch.Generator().manual_seed(1))
    return model


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(40).reshape(2, 20)).logits  # type: ignore[no-any-return]


# --- every tuner -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("tuner", TUNERS)
def test_what_is_merged_is_what_was_trained(tuner: str, family: str) -> None:
    """The logits of the model whose projections run adapted, and of the model with the update: 2e-6 of their size."""
    model = with_biases(teachable(family))
    before, states = snapshot(model), (torch.get_rng_state(), random.getstate())
    samples, config = samples_of(model, 4), Peft(tuner=tuner, sites=SITES, options=SMALL.get(tuner, {}))
    with seeded(3, model.device):
        adapters = Adapters(model, SITES, tuner, config.options, total_steps=5)
        adapters.tuner.eval()
        with standing_in(adapters.stand_ins):
            untrained = logits(model)
        adapters.tuner.train()
        config = config.model_copy(update={"learning_rate": 1e-2})
        with tuning(model, samples, config, trained=lambda: adapters) as steps:
            losses = [steps.step(range(4)) for _ in range(6)]
    adapters.tuner.eval()
    with standing_in(adapters.stand_ins):
        trained = logits(model)
    update = adapters.update()
    own, scale = logits(model), float(trained.abs().max())
    with applied(model, update):
        merged = logits(model)
    assert float((merged - trained).abs().max()) < 2e-6 * scale
    assert float((merged - own).abs().max()) > 1e-3 * scale, "something moved"
    assert losses[-1] < losses[0]
    gap = float((untrained - own).abs().max()) / scale
    assert 1e-5 < gap < 2e-2 if tuner in FROM_A_CHANGE else gap < 1e-5
    biases = {name.replace("weight", "bias") for name in NAMES[family] if family == "gpt2" and tuner in WITH_BIAS}
    assert {*NAMES[family]} <= set(update) <= {*NAMES[family], *biases}
    assert bool(biases & set(update)) == bool(biases)
    assert unchanged(model, before)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


# --- the change as it is returned ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(("tuner", "rank"), [("lora", {"r": 2}), ("adalora", {"init_r": 3, "target_r": 2})])
def test_the_update_of_lora_is_factors_of_its_rank(tuner: str, rank: dict[str, int], family: str) -> None:
    model = teachable(family)
    result = edit(model, tuner=tuner, options=rank)
    assert set(result.update) == {*NAMES[family]}
    for name, change in result.update.items():
        assert isinstance(change, LowRank)
        assert change.left.shape[1] == max(rank.values())
        assert (change.left.shape[0], change.right.shape[1]) == model.get_parameter(name).shape
        product = change.left @ change.right
        assert 0 < torch.linalg.matrix_rank(product, rtol=1e-4) <= max(rank.values())
    assert result.log["trained_values"] == sum(p.numel() for p in _trainable(model, tuner, rank))


def _trainable(model: PreTrainedModel, tuner: str, options: dict[str, int]) -> list[torch.Tensor]:
    with seeded(0, model.device):
        return [*Adapters(model, SITES, tuner, options, total_steps=9).values.values()]


@pytest.mark.parametrize(
    "options", [{"use_dora": True}, {"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}]
)
def test_a_change_that_is_not_b_a_is_a_difference(options: dict[str, Any]) -> None:
    """DoRA scales the columns; PiSSA and OLoRA take the first adapters out of the weight."""
    result = edit(teachable("llama"), options={"r": 2} | options)
    assert all(isinstance(change, Delta) for change in result.update.values())
    first = edit(teachable("llama"), options={"r": 2} | options, stop_below=1e9)  # no step
    assert all(float(change.tensor.abs().max()) < 1e-6 for change in first.update.values())  # type: ignore[union-attr]


def test_alpha_zero_is_idle() -> None:
    model = teachable("llama")
    before = snapshot(model)
    with applied(model, edit(model, options={"lora_alpha": 0}).update):
        assert unchanged(model, before)
    with applied(model, edit(model, stop_below=1e9).update):
        assert unchanged(model, before), "no step, no change"


def test_one_step_of_lora_is_adams() -> None:
    """B moves by the learning rate, against the sign of its gradient, which is that of the weight times A."""
    model, twin = teachable("llama"), teachable("llama")
    samples, name = samples_of(model, 1), DOWN["llama"]
    labels = torch.tensor([[-100] * (samples[0].positions[0] + 1) + list(samples[0].labels)])
    twin(input_ids=torch.tensor([samples[0].ids]), labels=labels).loss.backward()
    change = edit(model, requests=1, sites=("1.down_proj",), epochs=1, options={"r": 2, "lora_alpha": 4}).update[name]
    assert isinstance(change, LowRank)
    gradient = twin.get_parameter(name).grad
    assert gradient is not None
    expected = -1e-2 * 2 * (gradient @ change.right.T).sign()  # alpha / r is 2
    torch.testing.assert_close(change.left, expected, rtol=1e-3, atol=1e-5)


def test_adalora_ends_with_its_budget_of_ranks_and_pays_for_what_is_not_orthogonal() -> None:
    model = teachable("llama")
    settings: dict[str, Any] = {"tuner": "adalora", "epochs": 4, "stop_below": 0.0}
    options = {"init_r": 4, "target_r": 1}
    result = edit(model, options=options, **settings)
    ranks = [torch.linalg.matrix_rank(c.left @ c.right, rtol=1e-4) for c in result.update.values()]  # type: ignore[union-attr]
    assert sum(ranks) == 2, "of two projections together"
    free = edit(model, options=options | {"orth_reg_weight": 0.0}, **settings)
    assert free.log["first_epoch_loss"] == pytest.approx(result.log["first_epoch_loss"], rel=1e-3)
    assert free.log["last_epoch_loss"] != result.log["last_epoch_loss"], "the loss is of the answers alone"


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["breadth_first", "depth_first"])
def test_a_target_is_learned_to_its_end(schedule: str) -> None:
    model, tokenizer, [request] = teachable("llama"), byte_tokenizer(), some_requests(1)
    settings: dict[str, Any] = {"schedule": schedule, "epochs": 80, "max_steps": 80, "stop_below": 0.1}
    result = edit(model, requests=1, learning_rate=2e-2, options={"r": 16}, **settings)
    with applied(model, result.update):
        assert greedy(model, tokenizer, request, 20) == " copper<|eos|>"
    assert 0 < int(result.log["steps"]) < 80
    assert (result.log.get("converged"), result.log.get("epochs")) == (
        (1, None) if schedule == "depth_first" else (None, result.log["steps"])
    )


def test_the_schedule_says_which_requests_a_turn_takes() -> None:
    breadth, depth = Peft(sites=SITES), Peft(sites=SITES, schedule="depth_first")
    assert (breadth.cumulative, breadth.restarts) == (True, True)
    assert (depth.cumulative, depth.restarts) == (False, False)
    assert not Peft(sites=SITES, restart=False).restarts


@pytest.mark.parametrize("schedule", ["breadth_first", "depth_first"])
def test_two_calls_agree_bit_for_bit_and_the_seed_matters(schedule: str) -> None:
    model = teachable("llama")
    settings: dict[str, Any] = {"schedule": schedule, "options": {"lora_dropout": 0.2}}
    results = [edit(model, seed=seed, **settings).update[DOWN["llama"]] for seed in (1, 1, 2)]
    assert all(torch.equal(one, other) for one, other in zip(*results[:2], strict=True))
    assert not torch.equal(results[0][1], results[2][1])


def test_the_prefix_is_what_no_adapter_changes() -> None:
    model, results = teachable("llama"), {}
    assert Peft(sites=("2.up_proj", "1.down_proj")).first_site == "1.down_proj"
    assert Peft(sites=("2.up_proj", "1.down_proj", "1.q_proj")).first_site == "1.layer"
    for sites in (("1.down_proj", "2.up_proj"), ("1.q_proj", "1.down_proj"), ("1.attention", "2.mlp")):
        results = {kept: edit(model, sites=sites, frozen_prefix=kept, learning_rate=1e-3) for kept in (True, False)}
        assert results[True].log["prefix"] in ("module", "layer")
        assert results[False].log["prefix"] == "embedding"
        assert results[True].log["last_epoch_loss"] == pytest.approx(results[False].log["last_epoch_loss"], abs=1e-4)


@pytest.mark.parametrize("tuner", ["lora", "adamss", "osf"])
def test_half_precision_models_have_adapters_in_float32(tuner: str) -> None:
    model = teachable("llama", dtype=torch.bfloat16)
    before = snapshot(model)
    result = edit(model, tuner=tuner, options=SMALL.get(tuner, {}))
    assert unchanged(model, before)
    assert all(t.dtype == torch.float32 and t.isfinite().all() for change in result.update.values() for t in change)
    assert float(result.log["last_epoch_loss"]) < float(result.log["first_epoch_loss"])


# --- settings --------------------------------------------------------------------------------------------------------


def test_sites_are_projections_parts_and_ranges_of_layers() -> None:
    assert Peft(sites=["0-2.down_proj", "1.attention"]).sites == (
        *(f"{layer}.down_proj" for layer in range(3)),
        "1.attention",
    )
    model = teachable("llama")
    found = {site: set(edit(model, sites=[site], epochs=1).update) for site in ("0-1.q_proj", "1.mlp", "1.layer")}
    layers = "model.layers.{}."
    assert found["0-1.q_proj"] == {layers.format(layer) + "self_attn.q_proj.weight" for layer in (0, 1)}
    assert found["1.mlp"] == {layers.format(1) + f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")}
    assert found["1.layer"] - found["1.mlp"] == {layers.format(1) + f"self_attn.{part}_proj.weight" for part in "qkvo"}
    with pytest.raises(ValidationError, match="the first layer comes after the last"):
        Peft(sites=["3-1.down_proj"])
    with pytest.raises(ValueError, match="layer 9 does not exist: the model has layers 0 to 2"):
        edit(model, sites=["9.down_proj"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tuner": "magic"}, "magic is unknown; accepted: lora, adalora"),
        ({"tuner": "prefix_tuning"}, "prefix_tuning cannot be merged into weights: it trains a prompt.*accepted: lora"),
        ({"tuner": "lily"}, "lily cannot be merged into weights: its layers share"),
        ({"options": {"rank": 3}}, "rank is no option of lora here; accepted: alpha_pattern.* r, rank_pattern"),
        ({"options": {"target_modules": ["q"]}}, "target_modules is no option of lora here"),
        ({"options": {"r": "eight"}}, "r: 'eight' is refused: Input should be a valid integer"),
        ({"options": {"init_lora_weights": "eva"}}, "'eva' needs data"),
        ({"tuner": "adalora", "options": {"target_r": 12}}, "target_r: 12 is not between 0 and init_r, 12"),
        ({"tuner": "oft", "options": {"r": 2, "oft_block_size": 4}}, "options: peft refuses them for oft"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Peft(sites=SITES, **settings)


def test_options_that_do_not_fit_the_models_sizes() -> None:
    with pytest.raises(ValueError, match=r"options: miss does not fit model.layers.1.mlp.down_proj.*`r` \(64\)"):
        edit(teachable("llama"), tuner="miss")


def test_every_tuner_of_the_library_is_accepted_or_has_a_reason() -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    assert {kind.value.lower() for kind in PEFT_TYPE_TO_CONFIG_MAPPING} == {*TUNERS, *UNMERGEABLE}
    assert not {*TUNERS} & {*UNMERGEABLE}
    for tuner in TUNERS:
        assert not {"target_modules", "bias", "peft_type", "total_step", "progressbar"} & {*accepted_options(tuner)}


def test_every_tuner_is_documented(repository: Path) -> None:
    rows = [line for line in (repository / "docs" / "peft.md").read_text().splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in row.split(" | ")[0].strip("| ").replace("`", "").split(", ")]
    assert sorted(named) == sorted({*TUNERS, *UNMERGEABLE})


# --- what peft may not do --------------------------------------------------------------------------------------------


def test_no_network_and_no_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("peft reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for tuner in ("lora", "boft", "frod", "osf"):
            edit(teachable("gpt2"), tuner=tuner, epochs=1, options=SMALL.get(tuner, {}))


def test_peft_is_imported_only_where_it_is_used(repository: Path) -> None:
    """Its import takes seconds, so no module of ours has it at its top."""
    for path in [path for folder in ("editing", "tasks", "flows") for path in (repository / folder).rglob("*.py")]:
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.partition(".")[0] == "peft" for name in names), path
