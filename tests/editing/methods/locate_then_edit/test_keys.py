"""What is read at the subjects' last tokens: the same as in full passes, and no more kept than is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from overedit.editing.methods.locate_then_edit import keys as subject_rows
from overedit.editing.methods.locate_then_edit.keys import Keys, SubjectActivations, at_subjects
from overedit.editing.methods.locate_then_edit.subjects import PromptSet, Templates, encode_prompt_sets
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.hooks import traced
from overedit.editing.model.partial_forward.tree_forward import TreeForward
from overedit.editing.model.weights import Delta, applied
from overedit.editing.requests import EditRequest
from tests.support.locate_then_edit import BARE, CONTEXTS, requests
from tests.support.teachable_models import byte_tokenizer
from tests.support.tiny_models import tiny


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox"])
@pytest.mark.parametrize("max_tokens", [1, 30, 10_000])
def test_rows_at_subjects_are_those_of_a_full_pass(family: str, max_tokens: int) -> None:
    model = tiny(family)
    prompt_sets = encode_prompt_sets(model, byte_tokenizer(), requests(), CONTEXTS)
    marked = [prompt for prompt_set in prompt_sets for prompt in prompt_set.prompts]
    seen = at_subjects(model, marked, outputs_of="1.layer", max_tokens=max_tokens)
    for row, sequence in zip(seen, marked, strict=True):
        hidden = model(torch.tensor([sequence.ids]), output_hidden_states=True).hidden_states[2]
        torch.testing.assert_close(row, hidden[0, sequence.position].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "qwen2_moe"])
def test_keys_are_what_enters_the_projection(family: str) -> None:
    """Also of a shared expert, which is given all tokens of a pass in one row."""
    model = tiny(family)
    prompt_sets = encode_prompt_sets(model, byte_tokenizer(), requests(), CONTEXTS)
    marked = [prompt for prompt_set in prompt_sets for prompt in prompt_set.prompts]
    seen = at_subjects(model, marked, inputs_of="1.down_proj", max_tokens=10_000)
    name = Anatomy.of(model).site_module("1.down_proj")
    for row, sequence in zip(seen, marked, strict=True):
        with traced(model, [name]) as trace, torch.no_grad():
            model(torch.tensor([sequence.ids]))
        torch.testing.assert_close(row, trace.inputs[name].flatten(0, -2)[sequence.position], rtol=1e-4, atol=1e-5)


class Plain:
    """Keys and outputs by separate passes over whole prompts, all layers of each."""

    def __init__(self, model: PreTrainedModel, prompt_sets: Sequence[PromptSet], templates: Templates) -> None:
        self.model, self.prompt_sets = model, prompt_sets
        self.sizes = [len(group) for group in templates]

    def keys(self, site: str) -> Keys:
        marked = [prompt for prompt_set in self.prompt_sets for prompt in prompt_set.prompts]
        rows_RX = at_subjects(self.model, marked, inputs_of=site, max_tokens=50).double()
        rows_NCX = rows_RX.unflatten(0, (len(self.prompt_sets), -1))
        groups = [group_NCX.mean(1) for group_NCX in rows_NCX.split(self.sizes, 1)]
        return Keys(torch.stack(groups).mean(0).T, rows_NCX[:, 0].T)

    def outputs(self, site: str) -> torch.Tensor:
        bare = [prompt_set.prompts[0] for prompt_set in self.prompt_sets]
        return at_subjects(self.model, bare, outputs_of=site, max_tokens=50).double().T


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "gpt2": ("gpt2", {}),
    "gpt_neox": ("gpt_neox", {}),
    "sliding window, longer than the prompts": ("mistral", {"sliding_window": 63}),
    "sliding window, shorter than the prompts": ("mistral", {"sliding_window": 7}),
    "sliding window in some layers": ("gemma2", {"sliding_window": 9}),
}


def prompts_of(kind: str) -> tuple[list[EditRequest], Templates]:
    if kind == "usual":
        return requests(4), CONTEXTS
    if kind == "equal":
        return [*requests(2), *requests(2)], CONTEXTS
    one = EditRequest(case_id="0", prompt="B is", subject="B", target_new="x")
    other = EditRequest(case_id="1", prompt="B", subject="B", target_new="y")
    return [one, other], BARE if kind == "one token" else CONTEXTS


def assert_equal(subjects: SubjectActivations, plain: Plain, *, through: float = 1e-10) -> None:
    """Layer after layer, each edited after its keys were read: what a turn does."""
    anatomy = Anatomy.of(plain.model)
    for layer in range(anatomy.num_layers):
        site = f"{layer}.down_proj"
        found, expected = subjects.keys(site), plain.keys(site)
        torch.testing.assert_close(found.mean_IN, expected.mean_IN, rtol=through, atol=through)
        torch.testing.assert_close(found.bare_IN, expected.bare_IN, rtol=through, atol=through)
        found_ON = subjects.outputs("2.layer", in_contexts=False)
        torch.testing.assert_close(found_ON, plain.outputs("2.layer"), rtol=through, atol=through)
        with torch.no_grad():
            plain.model.get_parameter(anatomy.site_parameters(site)[0]).mul_(1.5)


@pytest.mark.parametrize("kind", ["usual", "equal", "subject first", "one token"])
@pytest.mark.parametrize("name", MODELS)
def test_shared_prefixes_and_kept_layers_change_no_number(name: str, kind: str) -> None:
    family, settings = MODELS[name]
    model = tiny(family, dtype=torch.float64, **settings)
    asked, templates = prompts_of(kind)
    prompt_sets = encode_prompt_sets(model, byte_tokenizer(), asked, templates)
    assert_equal(
        SubjectActivations(model, prompt_sets, templates, 10_000),
        Plain(model, prompt_sets, templates),
    )


@pytest.mark.parametrize(("max_tokens", "num_kept"), [(1, 0), (8, 4), (20, 10)])
def test_what_exceeds_the_memory_is_not_kept(max_tokens: int, num_kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some chunks of requests keep their layers' inputs, and others do not."""
    model = tiny("llama", dtype=torch.float64)
    prompt_sets = encode_prompt_sets(model, byte_tokenizer(), requests(5), CONTEXTS)
    monkeypatch.setattr(subject_rows, "_ROWS_TOGETHER", 3)
    kept: list[int] = []

    class Counting(TreeForward):
        def read(self, site: str, *, entering: bool, keep: bool) -> torch.Tensor:
            if site == "1.down_proj" and keep:
                kept.append(self.num_tokens)
            return super().read(site, entering=entering, keep=keep)

    monkeypatch.setattr(subject_rows, "TreeForward", Counting)
    subjects = SubjectActivations(model, prompt_sets, CONTEXTS, max_tokens)
    assert_equal(subjects, Plain(model, prompt_sets, CONTEXTS))
    assert sum(kept) <= 16 * max_tokens and len(kept) == num_kept


def test_what_was_kept_is_not_used_after_an_edit_below_it() -> None:
    model = tiny("llama", dtype=torch.float64)
    prompt_sets = encode_prompt_sets(model, byte_tokenizer(), requests(), CONTEXTS)
    subjects, plain = SubjectActivations(model, prompt_sets, CONTEXTS, 10_000), Plain(model, prompt_sets, CONTEXTS)
    before = subjects.keys("2.down_proj").mean_IN
    name = "model.layers.1.mlp.down_proj.weight"
    with applied(model, {name: Delta(model.get_parameter(name).detach() / 2)}):
        within = subjects.keys("2.down_proj").mean_IN
        torch.testing.assert_close(within, plain.keys("2.down_proj").mean_IN, rtol=1e-10, atol=1e-10)
    assert float((within - before).abs().max()) > 1e-3
    assert torch.equal(subjects.keys("2.down_proj").mean_IN, before)


def test_half_precision_rounds_as_it_would_without_sharing() -> None:
    model = tiny("llama", dtype=torch.bfloat16)
    prompt_sets = encode_prompt_sets(model, byte_tokenizer(), requests(), CONTEXTS)
    assert_equal(
        SubjectActivations(model, prompt_sets, CONTEXTS, 10_000), Plain(model, prompt_sets, CONTEXTS), through=0.05
    )


def test_few_requests_contexts_are_kept_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama", dtype=torch.float64)
    prompt_sets = encode_prompt_sets(model, byte_tokenizer(), requests(5), CONTEXTS)
    whole = SubjectActivations(model, prompt_sets, CONTEXTS, 10_000).keys("1.down_proj")
    assert whole.bare_IN.untyped_storage().nbytes() == whole.bare_IN.nbytes  # not a view of every context's rows
    asked: list[int] = []

    class Counting(TreeForward):
        def read(self, site: str, **arguments: Any) -> torch.Tensor:
            found = super().read(site, **arguments)
            asked.append(len(found))
            return found

    monkeypatch.setattr(subject_rows, "TreeForward", Counting)
    monkeypatch.setattr(subject_rows, "_ROWS_TOGETHER", 7)
    some = SubjectActivations(model, prompt_sets, CONTEXTS, 10_000).keys("1.down_proj")
    assert asked == [2, 4, 2, 4, 1, 2]  # the bare prompts of two, two and one requests, and their other contexts
    torch.testing.assert_close(some.mean_IN, whole.mean_IN, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(some.bare_IN, whole.bare_IN, rtol=1e-12, atol=1e-12)
