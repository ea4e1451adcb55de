"""The frozen prefix: the same losses and weights as without it, for every family, within the memory given."""

from __future__ import annotations

import pytest
import torch

from overedit.editing.methods.fine_tuning.tuner import SiteTuning, tuning
from overedit.editing.model.anatomy import FAMILIES as ANATOMIES
from overedit.editing.model.hooks import standing_in
from overedit.editing.model.weights import Replacement, applied
from tests.support.teachable_models import FAMILIES, plain_losses, samples_of, teachable


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("site", "start"),
    [
        ("0.down_proj", "module"),
        ("1.down_proj", "module"),
        ("2.down_proj", "module"),
        ("1.up_proj", "layer"),
        ("2.mlp", "layer"),
        ("1.layer", "layer"),
        ("0.o_proj", "layer"),
    ],
)
def test_frozen_prefix_changes_neither_losses_nor_weights(family: str, site: str, start: str) -> None:
    model = teachable(family)
    samples = samples_of(model)
    runs = []
    for frozen_prefix in (True, False):
        config = SiteTuning(site=site, frozen_prefix=frozen_prefix, learning_rate=1e-3)
        with tuning(model, samples, config) as tuner:
            losses = [tuner.step(batch) for batch in ([0, 1, 2, 3], [4, 5, 6], [6, 2, 4, 0])]
            runs.append((tuner.prefix.start, losses, {n: v.detach() for n, v in tuner.values.items()}))
    (kept, losses, values), (not_kept, plain, plain_values) = runs
    assert (kept, not_kept) == (start, "embedding")
    assert losses == pytest.approx(plain, rel=3e-7)  # a few units in the last place
    for name, value in plain_values.items():
        if not name.endswith(
            "bias"
        ):  # a key's bias changes no attention: its gradient is rounding, its steps are whole
            torch.testing.assert_close(values[name], value, rtol=1e-3, atol=3e-5)
    ends = []
    for trained in (values, plain_values):
        with applied(model, {name: Replacement(value) for name, value in trained.items()}):
            ends.append(plain_losses(model, samples))
    assert ends[0] == pytest.approx(ends[1], rel=1e-5)


@pytest.mark.parametrize("family", ANATOMIES)
def test_every_known_family_can_be_tuned_from_its_prefix(family: str) -> None:
    """Gemma 2 and 3 normalise what an MLP adds, a shared expert is scaled: there the layer is the start."""
    model = teachable(family)
    site = "1.down_proj" if "down_proj" in ANATOMIES[family].parts else "1.mlp"
    samples = samples_of(model)
    runs = []
    for frozen_prefix in (True, False):
        with tuning(model, samples, SiteTuning(site=site, frozen_prefix=frozen_prefix)) as tuner:
            runs.append([tuner.step(batch) for batch in ([0, 1, 2, 3], [4, 5, 6], [6, 2, 4, 0])])
            start = tuner.prefix.start
        if frozen_prefix:
            by_layer = site == "1.mlp" or family in {"gemma2", "gemma3_text", "qwen2_moe"}
            assert start == ("layer" if by_layer else "module")
    assert runs[0] == pytest.approx(runs[1], rel=1e-5)
    assert runs[1][0] == pytest.approx(sum(plain_losses(model, samples[:4])) / 4, rel=1e-5)


@pytest.mark.parametrize(("num_bytes", "start"), [(32 + 48, "module"), (79, "layer"), (32, "layer"), (31, "embedding")])
def test_what_is_kept_fits_the_memory_given(num_bytes: int, start: str) -> None:
    model = teachable("llama")
    samples = samples_of(model)
    tokens = sum(len(sample.ids) for sample in samples)
    config = SiteTuning(site="1.down_proj", prefix_gib=num_bytes * 4 * tokens / 2**30)
    with tuning(model, samples, config) as tuner:
        assert tuner.prefix.start == start
        assert tuner.prefix.num_bytes == {"module": 80, "layer": 32, "embedding": 0}[start] * 4 * tokens


def test_a_down_projection_whose_output_is_changed_on_its_way_starts_at_the_layer() -> None:
    model = teachable("llama")
    expected = plain_losses(model, samples_of(model))[0]
    mlp = model.model.layers[1].mlp
    run = mlp.forward
    with (
        standing_in({mlp: lambda hidden: run(hidden) * 0.5}),
        tuning(model, samples_of(model), SiteTuning(site="1.down_proj")) as tuner,
    ):
        assert tuner.prefix.start == "layer"
        assert tuner.step([0]) != pytest.approx(expected, abs=1e-3)
