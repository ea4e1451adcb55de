"""GRACE against the numbers of a published implementation, and its geometry by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from overedit.editing.methods.grace import Grace, grace, router
from overedit.editing.methods.routing.codebook import Codebook
from overedit.editing.model.routing import routed
from overedit.editing.requests import EditRequest
from tests.support.hooks import num_hooks
from tests.support.teachable_models import byte_tokenizer, some_requests
from tests.support.tiny_models import tiny


class Case:
    """The published run."""

    def __init__(self, golden: Path) -> None:
        self.content: dict[str, Any] = json.loads((golden / "grace/case.json").read_text())
        self.tensors = load_file(golden / "grace/tensors.safetensors")
        folder = golden / "models" / self.content["model"]
        self.model, self.tokenizer = (kind.from_pretrained(folder) for kind in (AutoModelForCausalLM, AutoTokenizer))
        hparams = self.content["hparams"]
        self.config = Grace(
            site="2.down_proj", radius=hparams["eps"], learning_rate=hparams["edit_lr"], num_steps=hparams["n_iter"]
        )
        self.edits = [
            EditRequest(case_id=str(i), prompt=edit["prompt"], target_new=edit["target_new"])
            for i, edit in enumerate(self.content["edits"])
        ]

    def state(self, edit: int) -> dict[str, torch.Tensor]:
        """The published codebook after an edit, its entries in the order in which they were made."""
        made = [i for i in range(edit + 1) if self.content["edits"][i]["event"] != "radius expanded"]
        targets = [self.content["edits"][i]["input_ids"][self.content["edits"][i]["key_position"] + 1 :] for i in made]
        return {
            "keys": self.tensors[f"edit{edit}.keys"],
            "values": self.tensors[f"edit{edit}.values"],
            "radii": self.tensors[f"edit{edit}.epsilons"].double(),
            "targets": torch.tensor([token for target in targets for token in target]),
            "target_lengths": torch.tensor([len(target) for target in targets]),
        }


@pytest.fixture(scope="module")
def case(golden: Path) -> Case:
    return Case(golden)


@pytest.mark.parametrize("edit", [0, 1, 2, 3, 5])
def test_edits_are_the_published_ones(case: Case, edit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fifth is left out: the published code compares its target with another entry's."""
    initial = case.tensors.get(f"edit{edit}.initial_value")
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: initial[None] if initial is not None else 1 / 0)
    before = case.state(edit - 1) if edit else {}
    result = grace(case.model, case.tokenizer, case.edits[edit : edit + 1], case.config, before)
    wanted = case.state(edit)
    assert result.update == {}
    assert set(result.state) == set(wanted)
    assert torch.equal(result.state["targets"], wanted["targets"])
    for name, tolerance in (("keys", 1e-4), ("radii", 1e-4), ("values", 3e-4)):
        assert float((result.state[name] - wanted[name]).norm() / wanted[name].norm()) < tolerance
    losses = case.content["edits"][edit]["losses"]
    assert result.log["loss_before"] == pytest.approx(losses[0], rel=1e-4)
    event = {"init": "added", "new entry": "added", "radius expanded": "expanded", "new entry, radii split": "split"}
    assert result.log[event[case.content["edits"][edit]["event"]]] == 1


def test_the_same_target_near_by_expands_an_entry_that_is_not_the_first(case: Case) -> None:
    """Where the published code splits, because it looks at another entry's target."""
    result = grace(case.model, case.tokenizer, case.edits[4:5], case.config, case.state(3))
    assert (result.log["expanded"], result.log["split"], result.log["entries"]) == (1, 0, 3)


def test_prompts_are_routed_as_published(case: Case) -> None:
    chosen = router(case.model, case.config, case.state(5))
    for number, each in enumerate(case.content["routing"]):
        ids = torch.tensor([case.tokenizer(each["prompt"])["input_ids"]])
        assert ids.shape[1] - 1 == each["prompt_end"]["position"]
        with torch.no_grad(), routed(case.model, chosen, [ids.shape[1] - 1]):
            logits_V = case.model(ids).logits[0, -1]
        with torch.no_grad():
            unedited_V = case.model(ids).logits[0, -1]
        wanted_V = case.tensors[f"routing{number}.prompt_end.logits"]
        assert float((logits_V - wanted_V).norm() / wanted_V.norm()) < 3e-4
        assert torch.equal(logits_V, unedited_V) is not each["prompt_end"]["inside"]


def book(radii: list[float], keys: list[list[float]], targets: list[tuple[int, ...]]) -> Codebook:
    return Codebook(torch.tensor(keys), torch.zeros(len(keys), 2), torch.tensor(radii).double(), tuple(targets))


def test_radii_by_hand() -> None:
    first = book([1.0], [[0.0, 0.0]], [(7,)])
    near, far, other = torch.tensor([[1.5, 0.0]]), torch.tensor([[2.5, 0.0]]), torch.tensor([[0.0, 1.5]])
    expanded = first.insert(near, [(7,)], 1.0)
    assert (expanded.entries, expanded.events, expanded.codebook.radii_N.tolist()) == ([0], ["expanded"], [1.5])
    added = first.insert(far, [(7,)], 1.0)
    assert (added.entries, added.events, added.codebook.radii_N.tolist()) == ([1], ["added"], [1.0, 1.0])
    split = first.insert(other, [(8,)], 1.0)
    assert (split.entries, split.events) == ([1], ["split"])
    assert split.codebook.radii_N.tolist() == pytest.approx([0.75 - 1e-5, 0.75], abs=1e-12)
    again = first.insert(torch.tensor([[0.5, 0.0]]), [(7,)], 1.0)
    assert again.codebook.radii_N.tolist() == [1.0], "a radius never shrinks for the same target"


def test_edits_of_one_call_are_those_of_several() -> None:
    torch.manual_seed(5)
    keys_BI = torch.randn(40, 3)
    targets = [(number % 4,) for number in range(40)]
    together = book([], [], [])._replace(keys_NI=torch.empty(0, 3)).insert(keys_BI, targets, 0.4)
    one = book([], [], [])._replace(keys_NI=torch.empty(0, 3))
    events, entries = [], []
    for key_I, target in zip(keys_BI, targets, strict=True):
        step = one.insert(key_I[None], [target], 0.4)
        one, events, entries = step.codebook, events + step.events, entries + step.entries
    assert set(events) == {"added", "expanded", "split"}
    assert (events, entries) == (together.events, together.entries)
    assert torch.equal(one.radii_N, together.codebook.radii_N)
    assert torch.equal(one.keys_NI, together.codebook.keys_NI)


def edited(model: PreTrainedModel, **settings: Any) -> tuple[Grace, dict[str, torch.Tensor], dict[str, Any]]:
    config = Grace(site="1.down_proj", num_steps=20, learning_rate=0.5, radius=1e-3, **settings)
    result = grace(model, byte_tokenizer(), some_requests(4), config, {}, seed=3)
    return config, result.state, result.log


@pytest.mark.parametrize("start", ["random", "output"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_edited_prompts_are_answered_and_others_have_the_bits_of_the_base(family: str, start: str) -> None:
    model, tokenizer = tiny(family), byte_tokenizer()
    config, state, log = edited(model, start=start)
    assert log["dropped"] == 0
    assert log["loss_after"] < log["loss_before"]
    chosen, hooks = router(model, config, state), num_hooks(model)
    prompts = [request.prompt for request in some_requests(4)]
    ids = [tokenizer(prompt)["input_ids"] for prompt in [*prompts, "nothing of the kind"]]
    width = max(map(len, ids))
    padded = torch.tensor([[*row, *[0] * (width - len(row))] for row in ids])
    with torch.no_grad():
        before = model(padded).logits
        with routed(model, chosen, [len(row) - 1 for row in ids]):
            after = model(padded).logits
    assert num_hooks(model) == hooks
    assert torch.equal(after[-1], before[-1]), "a prompt far from all edits"
    for row, request in enumerate(some_requests(4)):
        end = len(ids[row]) - 1
        assert torch.equal(after[row, :end], before[row, :end]), "tokens before the prompt's end"
        assert not torch.equal(after[row, end], before[row, end]), request.prompt


def test_a_codebook_without_entries_and_texts_without_prompts_change_nothing() -> None:
    model, ids = tiny("llama"), torch.tensor([[5, 6, 7, 8]])
    config, state, _ = edited(model)
    with torch.no_grad():
        base = model(ids).logits
        for codebook, ends in (({}, [3]), (state, [-1])):
            with routed(model, router(model, config, codebook), ends):
                assert torch.equal(model(ids).logits, base)


def test_a_resumed_codebook_has_the_same_bits() -> None:
    model, config = tiny("llama"), Grace(site="1.down_proj", num_steps=3)
    whole: dict[str, torch.Tensor] = {}
    for first in (0, 2, 4):
        whole = grace(model, byte_tokenizer(), some_requests(6)[first : first + 2], config, whole, seed=first).state
    half = grace(model, byte_tokenizer(), some_requests(6)[:2], config, {}, seed=0).state
    stored = {name: tensor.clone() for name, tensor in half.items()}
    for first in (2, 4):
        stored = grace(model, byte_tokenizer(), some_requests(6)[first : first + 2], config, stored, seed=first).state
    assert all(torch.equal(whole[name], stored[name]) for name in whole)


@pytest.mark.parametrize("site", ["1.layer", "down_proj", "x.down_proj", "1.up_proj"])
def test_other_sites_are_refused(site: str) -> None:
    with pytest.raises(
        ValidationError, match=f"'{site}' is no layer's second MLP projection; accepted: a site like 27"
    ):
        Grace(site=site)
