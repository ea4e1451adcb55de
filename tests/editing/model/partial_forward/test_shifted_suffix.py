"""The shifted suffix against whole passes, and what it leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from overedit.editing.model.anatomy import FAMILIES, Anatomy
from overedit.editing.model.hooks import frozen, standing_in
from overedit.editing.model.partial_forward.shifted_suffix import ShiftedSuffix, tokens_that_fit
from overedit.editing.model.tokenization import MarkedSequence
from tests.support.tiny_models import tiny

SEQUENCES = [
    MarkedSequence((5, 6, 7, 8, 9), 1, (10,)),
    MarkedSequence((11, 12, 5, 6, 7, 8), 3, (8, 9)),
    MarkedSequence((13, 14, 15), 0),
    MarkedSequence((16, 17), 1, (18,)),
]
READS = [(4,), (4, 5), (0,), (1,)]


@pytest.mark.parametrize("site", ["1.mlp", "1.layer", "2.mlp", "2.layer"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_whole_passes(family: str, site: str) -> None:
    model = tiny(family)
    module = model.get_submodule(Anatomy.of(model).site_module(site))
    shifts_BD = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    run, (shift, place) = module.forward, (shifts_BD[0], 0)

    def shifted(*args: object, **kwargs: object) -> object:
        output = run(*args, **kwargs)
        out = (output[0] if isinstance(output, tuple) else output).clone()
        out[0, place] += shift
        return (out, *output[1:]) if isinstance(output, tuple) else out

    with frozen(model):
        suffix = ShiftedSuffix(model, site, SEQUENCES)
        for chosen in ([0, 1, 2, 3], [3, 1], [2]):
            logits_UV = suffix.logits_UV(suffix.pack(chosen), shifts_BD[chosen])
            expected = []
            for b in chosen:
                shift, place = shifts_BD[b], SEQUENCES[b].position
                with standing_in({module: shifted}):
                    expected.append(model(input_ids=torch.tensor([SEQUENCES[b].ids])).logits[0, READS[b]])
            torch.testing.assert_close(logits_UV, torch.cat(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("site", "queries"), [("1.layer", 4), ("0.layer", 5)])
def test_only_what_a_shift_can_change_runs(site: str, queries: int) -> None:
    """Next to the site: queries, keys and values of the 4 shifted tokens; in the last layer: the 5 read positions."""
    model = tiny("llama")
    attention = [f"layers.2.self_attn.{part}_proj" for part in "qko"]
    names = ["layers.0", "layers.1.mlp", "layers.1.self_attn.v_proj", "layers.2", *attention, "layers.2.mlp", "norm"]
    seen: dict[str, int] = {}

    def counting(name: str, run: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def counted(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            seen[name] = hidden.shape[:-1].numel()
            return run(hidden, *args, **kwargs)

        return counted

    with frozen(model):
        suffix = ShiftedSuffix(model, site, SEQUENCES)
        packed = suffix.pack([0, 1, 2, 3])
        modules = {name: model.get_submodule(f"model.{name}") for name in names} | {"head": model.lm_head}
        with standing_in({module: counting(name, module.forward) for name, module in modules.items()}):
            suffix.logits_UV(packed, torch.zeros(4, 32))
    assert packed.num_tokens == 4 + 3 + 3 + 1
    whole = packed.entering_LSD.shape[:-1].numel()
    last = {"layers.2.self_attn.q_proj": queries, "layers.2.self_attn.o_proj": 5, "layers.2.mlp": 5, "head": 5}
    keys = {"layers.2.self_attn.k_proj": 4 if site == "1.layer" else whole}
    below = {} if site == "1.layer" else {"layers.1.mlp": whole, "layers.1.self_attn.v_proj": 4}
    assert seen == {"layers.2": whole, "norm": whole} | last | keys | below


def test_a_pass_leaves_nothing_behind() -> None:
    model = tiny("gpt2")
    with frozen(model):
        suffix = ShiftedSuffix(model, "0.mlp", SEQUENCES)
        packed, shifts_BD = suffix.pack([0, 1, 2, 3]), torch.ones(4, 32)
        first = suffix.logits_UV(packed, shifts_BD)
        suffix.logits_UV(packed, 2 * shifts_BD)
        assert torch.equal(first, suffix.logits_UV(packed, shifts_BD))


def test_the_gradient_is_that_of_the_shifts_only() -> None:
    model = tiny("llama")
    with frozen(model):
        suffix = ShiftedSuffix(model, "1.mlp", SEQUENCES)
        shifts_BD = torch.zeros(4, 32, requires_grad=True)
        (gradient_BD,) = torch.autograd.grad(suffix.logits_UV(suffix.pack([0, 1, 2, 3]), shifts_BD)[0, 7], shifts_BD)
    assert bool(gradient_BD[0].any())  # the first place read belongs to the first sequence, and to no other
    assert not bool(gradient_BD[1:].any())


def test_sites_windows_and_attention_are_checked() -> None:
    with pytest.raises(ValueError, match="values are those of"):
        ShiftedSuffix(tiny("llama"), "1.down_proj", SEQUENCES)
    with pytest.raises(ValueError, match="6 tokens exceeds the model's sliding window of 5"):
        ShiftedSuffix(tiny("mistral", sliding_window=5), "1.mlp", SEQUENCES)
    model = tiny("llama")
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ValueError, match="flash attention"):
        ShiftedSuffix(model, "1.mlp", SEQUENCES)


def test_a_processor_takes_a_fixed_number_of_tokens() -> None:
    assert tokens_that_fit(tiny("llama"), "1.mlp", SEQUENCES) == 1024
