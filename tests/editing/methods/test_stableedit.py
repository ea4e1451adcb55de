"""StableEdit: its equation on both sides of n = O + 1, its warm-up, and UltraEdit as its diagonal case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from overedit.editing.methods.base import EditResult, State
from overedit.editing.methods.gradients.answer_gradients import ModuleGradients
from overedit.editing.methods.gradients.turn import trace_turn
from overedit.editing.methods.gradients.whitening import gradient_moments
from overedit.editing.methods.stableedit import StableEdit, stableedit, target_rows
from overedit.editing.methods.ultraedit import UltraEdit, ultraedit, update_moments
from overedit.editing.methods.ultraedit import target_rows as ultraedit_target_rows
from overedit.editing.model.weights import apply_update, checksum
from overedit.editing.requests import EditRequest
from tests.support.teachable_models import byte_tokenizer, some_requests
from tests.support.tiny_models import tiny
from tests.support.updates import dense

RATE, NEVER = 1e-3, 10**9
OUTPUTS = 32
"""Of `down_proj` in the tiny models."""
TURNS = [some_requests(9)[first : first + 3] for first in (0, 3, 6)]
"""27, 16 and 30 rows for each site: two sites cross n = O + 1 in the first turn, one site in the second."""


def configured(**settings: Any) -> StableEdit:
    return StableEdit(**({"sites": ("1.down_proj",), "learning_rate": RATE, "warm_up": 0} | settings))


def edit(
    model: PreTrainedModel, requests: Sequence[EditRequest], state: State | None = None, **settings: Any
) -> EditResult:
    return stableedit(model, byte_tokenizer(), requests, configured(**settings), state or {})


def plain_change(seen: Sequence[ModuleGradients], rows: ModuleGradients, ridge: float) -> torch.Tensor:
    """The equations as they stand, (I, O): a singular value decomposition of all gradients, and the primal solve."""
    all_keys, all_gradients = (torch.cat(part).double() for part in zip(*seen, strict=True))
    h, g = rows.keys.double(), rows.gradients.double()
    spare = len(all_keys) - OUTPUTS - 1
    if spare > 0:
        _, singular, right = torch.linalg.svd(all_gradients - all_gradients.mean(0), full_matrices=False)
        root = right.T @ torch.diag((singular**2 / spare).clamp(min=1e-6) ** -0.5) @ right
        g_hat = (g - all_gradients.mean(0)) @ root
    else:
        g_hat = (g - all_gradients.mean(0)) / all_gradients.std(0)
    v = -RATE * ((h - all_keys.mean(0)) / all_keys.std(0)).square().sum(1, keepdim=True) * g_hat
    return torch.linalg.solve(h.T @ h + ridge * torch.eye(h.shape[1]), h.T @ v)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_trajectory_is_the_papers_formula_on_both_sides_of_the_crossing(family: str) -> None:
    model, config = tiny(family), configured()
    seen: list[ModuleGradients] = []
    state: State = {}
    crossed = []
    for requests in TURNS:
        (rows,) = trace_turn(
            model, byte_tokenizer(), requests, config, progress=lambda done, total: None
        ).rows.modules.values()
        seen.append(rows)
        result = stableedit(model, byte_tokenizer(), requests, config, state)
        (change,) = result.update.values()
        expected = plain_change(seen, rows, config.ridge)
        found = dense(change) if family == "gpt2" else dense(change).T
        assert (found - expected).norm() / expected.norm() < 1e-5
        (crossing,) = (value for key, value in result.log.items() if key.startswith("whitened/"))
        crossed.append(crossing)
        apply_update(model, result.update)
        state = result.state
    counts = torch.tensor([len(each.keys) for each in seen]).cumsum(0)
    assert crossed == [int(count > OUTPUTS + 1) for count in counts] == [0, 1, 1]


def test_sites_of_one_shape_cross_together() -> None:
    log = edit(tiny("llama"), TURNS[0], sites=("0.down_proj", "1.down_proj", "1.up_proj")).log
    assert (log["rows"], log["whitened/48x32"], log["whitened/32x48"]) == (27, 1, 0)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_diagonal_case_is_ultraedit(family: str) -> None:
    """Never whitened and with a ridge of 1 it has UltraEdit's bits: without `compat`, UltraEdit's variance is exact."""
    model, tokenizer, sites = tiny(family), byte_tokenizer(), ("1.down_proj", "2.up_proj")
    plain: State = {}
    state: State = {}
    for requests in TURNS:
        expected = ultraedit(model, tokenizer, requests, UltraEdit(sites=sites, learning_rate=RATE), plain)
        found = edit(model, requests, state, sites=sites, ridge=1.0, warm_up=NEVER)
        for name, change in expected.update.items():
            assert [checksum(factor) for factor in found.update[name]] == [checksum(factor) for factor in change]
        assert all(torch.equal(found.state[name], tensor) for name, tensor in expected.state.items())
        assert found.log.items() > expected.log.items() and found.log["warm_up"] == 1
        plain, state = expected.state, found.state
        apply_update(model, expected.update)


def test_the_published_ultraedit_differs_by_its_variance_alone() -> None:
    """One chunk of R rows: its standard deviations are sqrt(R / (R - 1)) larger, of which a target has three."""
    draw = torch.Generator().manual_seed(0)
    rows = ModuleGradients(torch.randn(7, 4, generator=draw), torch.randn(7, 3, generator=draw))
    moments = gradient_moments({"a": rows}, {})["4x3"]
    published = ultraedit_target_rows(rows, update_moments({"a": rows}, {}, chunks=[7])["4x3"], RATE)
    torch.testing.assert_close(
        target_rows(rows, moments, None, configured()), published * (7 / 6) ** 1.5, rtol=1e-12, atol=0
    )


def test_a_warm_up_ends_with_its_turn() -> None:
    model, requests = tiny("llama"), some_requests(12)
    state: State = {}
    logs = []
    for first in range(0, 12, 3):
        result = edit(model, requests[first : first + 3], state, warm_up=4)
        state = result.state
        logs.append((result.log["warm_up"], result.log["whitened/48x32"], int(state["num_edits"])))
    assert logs == [(1, 0, 3), (1, 0, 6), (0, 1, 9), (0, 1, 12)]
    assert int(state["48x32.count"]) > OUTPUTS + 1, "its rows are in the moments"
    assert edit(model, requests[:6]).log["whitened/48x32"] == 1


def test_a_resumed_trajectory_has_the_same_bits_across_the_crossing(tmp_path: Path) -> None:
    straight, resumed = tiny("llama"), tiny("llama")
    state: State = {}
    whitened = []
    for number, requests in enumerate(TURNS):
        result = edit(straight, requests, state, warm_up=1)
        if number:
            state = load_file(tmp_path / "state.safetensors")
        again = edit(resumed, requests, state, warm_up=1)
        assert again.log == result.log
        assert {k: checksum(v) for k, v in again.state.items()} == {k: checksum(v) for k, v in result.state.items()}
        save_file(again.state, tmp_path / "state.safetensors")
        state = result.state
        apply_update(straight, result.update)
        apply_update(resumed, again.update)
        whitened.append(result.log["whitened/48x32"])
    assert whitened == [0, 1, 1]
    weights = (dict(model.named_parameters()) for model in (straight, resumed))
    assert len({tuple(checksum(value) for value in each.values()) for each in weights}) == 1


def test_a_collapsed_model_gives_nan_and_no_error() -> None:
    model = tiny("llama")
    sound = edit(model, TURNS[0])
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    for state in ({}, sound.state):
        assert dense(edit(model, TURNS[2], state).update["model.layers.1.mlp.down_proj.weight"]).isnan().any()


def test_it_is_named_in_the_message_of_a_wrong_site() -> None:
    with pytest.raises(ValueError, match=r"stableedit edits single projections, and '1\.mlp' is not one"):
        edit(tiny("llama"), TURNS[0], sites=("1.mlp",))
