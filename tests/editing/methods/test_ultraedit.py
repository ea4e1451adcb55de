"""UltraEdit: its formula on every family, its statistics, and its edges."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import PreTrainedModel

from overedit.editing.methods.base import EditResult, State
from overedit.editing.methods.gradients.answer_gradients import ModuleGradients, trace_answers
from overedit.editing.methods.gradients.running_moments import Moments
from overedit.editing.methods.gradients.turn import loss_batches
from overedit.editing.methods.ultraedit import UltraEdit, target_rows, ultraedit, update_moments
from overedit.editing.model.tokenization import encode_requests
from overedit.editing.model.weights import LowRank, applied, apply_update
from overedit.editing.requests import EditRequest
from tests.support.oracles import IGNORED, pad_pairs
from tests.support.teachable_models import byte_tokenizer, some_requests
from tests.support.tiny_models import tiny
from tests.support.tokenizers import piece_tokenizer
from tests.support.updates import dense

RATE = 1e-3


def edit(
    model: PreTrainedModel, requests: list[EditRequest], state: State | None = None, **settings: Any
) -> EditResult:
    config = UltraEdit(**({"sites": ("1.down_proj",), "learning_rate": RATE} | settings))
    return ultraedit(model, byte_tokenizer(), requests, config, state or {})


def test_targets_by_hand() -> None:
    rows = ModuleGradients(torch.tensor([[1.0, 4.0], [3.0, 0.0]]), torch.tensor([[5.0], [9.0]]))
    moments = Moments(3, torch.tensor([1.0, 2.0, 5.0]).double(), torch.tensor([2.0, 8.0, 32.0]).double())
    # deviations 1, 2, 4: first row (0, 1 | 0), second (2, -1 | 1)
    assert target_rows(rows, moments, 0.1).flatten().tolist() == pytest.approx([0.0, -0.5])


def test_modules_of_one_shape_share_their_moments() -> None:
    first = ModuleGradients(torch.tensor([[0.0]]), torch.tensor([[0.0]]))
    second = ModuleGradients(torch.tensor([[2.0]]), torch.tensor([[4.0]]))
    moments = update_moments({"a": first, "b": second}, {})
    assert set(moments) == {"1x1"}
    assert (moments["1x1"].num_rows, moments["1x1"].mean_F.tolist()) == (2, [1.0, 2.0])
    assert moments["1x1"].m2_F.tolist() == [2.0, 8.0]


def test_inflated_moments_are_those_of_the_reference_but_for_its_nan() -> None:
    rows = ModuleGradients(torch.tensor([[0.0], [2.0], [7.0]]), torch.zeros(3, 1))
    exact = update_moments({"a": rows}, {})["1x1"]
    inflated = update_moments({"a": rows}, {}, chunks=[2, 1])["1x1"]
    assert float(exact.m2_F[0]) == pytest.approx(26.0)
    # first chunk 2 * unbiased variance 2 = 4, second 0, then 6^2 * 2 * 1 / 3
    assert float(inflated.m2_F[0]) == pytest.approx(28.0)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "gpt2", "gpt_neox"])
def test_one_turn_is_the_papers_formula(family: str) -> None:
    """Against batches of 10, full logits, autograd's output gradients and the primal solve, in a dozen lines."""
    model, requests = tiny(family), some_requests(13)
    result = edit(model, requests, sites=("1.down_proj", "2.up_proj"))
    pairs = sorted(encode_requests(model, byte_tokenizer(), requests), key=lambda p: -len(p.prompt) - len(p.target))
    for name, change in result.update.items():
        module = model.get_submodule(name.removesuffix(".weight"))
        keys, gradients = [], []
        for batch in (pad_pairs(pairs[:10], pad_id=0), pad_pairs(pairs[10:], pad_id=0)):
            seen: list[torch.Tensor] = []
            handle = module.register_forward_hook(lambda _, given, out, seen=seen: seen.extend((given[0], out)))
            logits = model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT).logits
            handle.remove()
            asked = batch.labels_BT != IGNORED
            loss = torch.nn.functional.cross_entropy(logits[asked], batch.labels_BT[asked])
            keys.append(seen[0].detach()[asked].double())
            gradients.append(torch.autograd.grad(loss, seen[1])[0][asked].double())
        h, g = torch.cat(keys), torch.cat(gradients)
        h_normal, g_normal = ((x - x.mean(0)) / x.std(0) for x in (h, g))
        v = -RATE * h_normal.square().sum(1, keepdim=True) * g_normal
        delta = torch.linalg.solve(h.T @ h + torch.eye(h.shape[1]), h.T @ v)
        expected = delta if family == "gpt2" else delta.T
        error = (dense(change) - expected).norm() / expected.norm()
        assert error < 2e-4, name


def test_an_edit_lowers_the_loss() -> None:
    model, requests = tiny("llama"), some_requests(5)
    pairs = encode_requests(model, byte_tokenizer(), requests)

    def loss() -> float:
        rows = trace_answers(
            model, pairs, ["model.layers.2.mlp.up_proj"], [1.0] * 5, max_tokens_per_pass=999, pack_tokens=32
        )
        return float(rows.losses.mean())

    result = edit(model, requests, learning_rate=1e-2, sites=("1.down_proj", "2.down_proj"))
    before = loss()
    assert result.log["loss"] == pytest.approx(before, rel=1e-5)
    with applied(model, result.update):
        assert loss() < before - 0.1
    assert loss() == before


@pytest.mark.parametrize("count", [1, 2, 5, 10, 11, 15])
@pytest.mark.parametrize("compat", ["none", "ultraedit-0beb222"])
def test_any_number_of_edits_gives_finite_weights(count: int, compat: str) -> None:
    model = tiny("llama")
    result = edit(model, some_requests(count), compat=compat)
    assert set(result.update) == {"model.layers.1.mlp.down_proj.weight"}
    for change in result.update.values():
        assert dense(change).isfinite().all()
        assert dense(change).abs().sum() > 0
    assert all(tensor.isfinite().all() for tensor in result.state.values())


def test_a_single_row_does_no_harm() -> None:
    """One edit with an answer of one token: alone in a life there is nothing to compare with, later there is."""
    model, tokenizer = tiny("llama"), piece_tokenizer()
    config = UltraEdit(sites=("1.down_proj",), learning_rate=RATE)
    lone = [EditRequest(case_id="0", prompt="the capital is", target_new="Oslo")]
    more = [EditRequest(case_id=str(i), prompt="the capital", target_new=word) for i, word in enumerate(("is", "x"))]
    name = "model.layers.1.mlp.down_proj.weight"
    first = ultraedit(model, tokenizer, lone, config, {})
    assert (int(first.state["48x32.count"]), first.log["rows"]) == (1, 1)
    assert dense(first.update[name]).abs().sum() == 0 and first.log["unmoved"] == 1
    later = ultraedit(model, tokenizer, lone, config, ultraedit(model, tokenizer, more, config, first.state).state)
    assert dense(later.update[name]).isfinite().all()
    assert dense(later.update[name]).abs().sum() > 0 and later.log["unmoved"] == 0


def test_state_goes_from_turn_to_turn_and_is_not_touched() -> None:
    model, requests = tiny("llama"), some_requests(8)
    first = edit(model, requests[:4])
    kept = {name: tensor.clone() for name, tensor in first.state.items()}
    second = edit(model, requests[4:], first.state)
    assert all(torch.equal(first.state[name], kept[name]) for name in kept)
    assert int(second.state["48x32.count"]) == first.log["rows"] + second.log["rows"]
    alone = edit(model, requests[4:])
    name = "model.layers.1.mlp.down_proj.weight"
    assert not torch.allclose(dense(alone.update[name]), dense(second.update[name]))
    whole = edit(model, requests).state  # no weight was written in between: the keys' statistics do not see the cut
    torch.testing.assert_close(whole["48x32.mean"][:48], second.state["48x32.mean"][:48])
    torch.testing.assert_close(whole["48x32.m2"][:48], second.state["48x32.m2"][:48], rtol=1e-5, atol=1e-5)


def test_passes_and_their_size_do_not_change_the_result() -> None:
    model, requests = tiny("llama"), some_requests(12)
    one = edit(model, requests, lane_tokens=10_000).update
    many = edit(model, requests, lane_tokens=40, max_tokens_per_pass=80).update
    for name, change in one.items():
        torch.testing.assert_close(dense(many[name]), dense(change), rtol=1e-3, atol=1e-7)


def test_micro_batches() -> None:
    model = tiny("llama")
    pairs = encode_requests(model, byte_tokenizer(), some_requests(5))
    lengths = [len(pair.prompt) + len(pair.target) for pair in pairs]
    assert lengths == [16, 19, 34, 13, 22]
    assert loss_batches(pairs, UltraEdit(sites=("0.mlp",), loss_batch_size=2)) == [[2, 4], [1, 0], [3]]
    assert loss_batches(pairs, UltraEdit(sites=("0.mlp",), loss_batch_size=3, order="given")) == [[0, 1, 2], [3, 4]]


def test_half_precision() -> None:
    exact = edit(tiny("llama"), some_requests(6)).update["model.layers.1.mlp.down_proj.weight"]
    model = tiny("llama", dtype=torch.bfloat16)
    result = edit(model, some_requests(6))
    change = result.update["model.layers.1.mlp.down_proj.weight"]
    assert isinstance(change, LowRank)
    assert change.left.dtype == change.right.dtype == torch.float32
    assert torch.cosine_similarity(dense(change).flatten(), dense(exact).flatten(), 0) > 0.95
    apply_update(model, result.update)
    assert model.dtype == torch.bfloat16


def test_a_collapsed_model_gives_nan_and_no_error() -> None:
    model = tiny("llama")
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    assert dense(edit(model, some_requests(4)).update["model.layers.1.mlp.down_proj.weight"]).isnan().any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sites": ("1.mlp",)}, "ultraedit edits single projections, and '1.mlp' is not one"),
        ({"sites": ("7.down_proj",)}, "layer 7 does not exist: the model has layers 0 to 2"),
    ],
)
def test_wrong_sites(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        edit(tiny("llama"), some_requests(2), **settings)


@pytest.mark.parametrize("settings", [{"sites": ()}, {}, {"sites": ("1.down_proj",), "layer": 3}])
def test_wrong_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        UltraEdit(**settings)
