"""Merging rules against the numbers of published implementations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from overedit.editing.merging.pcb import Variant, competition_balanced, scaled, scores
from overedit.editing.merging.rules import Pcb, Sum, Ties, agreeing_mean, total

FIRST, SECOND = (f"model.layers.{layer}.mlp.down_proj.weight" for layer in (1, 2))
VARIANTS: tuple[Variant, ...] = ("root", "nlp", "vision", "evolution")
TOLERANCE = 1e-5


class Golden(NamedTuple):
    case: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    def deltas(self, name: str) -> list[torch.Tensor]:
        """The changes that were merged: four random ones, a tensor's, or both tensors' in one row."""
        if name == "random":
            return list(self.tensors["random"])
        names = (FIRST, SECOND) if name == "edits_concatenated" else (name.removeprefix("edits."),)
        return [torch.cat([self.tensors[f"shard{shard}.{each}"].reshape(-1) for each in names]) for shard in range(3)]


@pytest.fixture(scope="module")
def published(golden: Path) -> Golden:
    folder = golden / "pcb"
    return Golden(json.loads((folder / "case.json").read_text()), load_file(folder / "tensors.safetensors"))


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.reshape(-1) - expected.reshape(-1)).norm() / expected.norm())


def test_pcb_in_its_four_variants(published: Golden) -> None:
    assert {case["variant"] for case in published.case["cases"].values()} == set(VARIANTS)
    for name, case in published.case["cases"].items():
        rule = Pcb(keep=case["ratio"], variant=case["variant"], scale=case["lam"])
        found = rule.merged(published.deltas(case["input"]), name="w")
        assert error(found, published.tensors[f"{name}.merged"]) < TOLERANCE, name
        assert int((found == 0).sum()) == case["entries_with_no_weight"], name


def test_the_parts_of_pcbs_score(published: Golden) -> None:
    deltas = published.deltas("random")
    for shard, found in enumerate(scores(deltas, "root")):
        for part, tensor in zip(("clipped", "intra", "inter"), found, strict=True):
            assert error(tensor, published.tensors[f"pcb.random.r0.1.root.{part}"][shard]) < TOLERANCE, part
        weights = scaled(found.intra_N * found.inter_N, 0.1)
        expected = published.tensors["pcb.random.r0.1.root.scale"][shard]
        assert error(weights, expected) < TOLERANCE
        assert torch.equal(weights == 0, expected == 0)
    for variant in VARIANTS[2:]:
        found_inter = torch.stack([each.inter_N for each in scores(deltas, variant)])
        assert error(found_inter, published.tensors[f"pcb.random.r0.1.{variant}.inter"]) < TOLERANCE


def test_the_variants_differ(published: Golden) -> None:
    deltas = published.deltas("random")
    found = [competition_balanced(deltas, keep=0.1, variant=variant) for variant in VARIANTS]
    assert all(error(found[0], other) > 1e-3 for other in found[1:])


@pytest.mark.parametrize(
    ("name", "expected"), [("edits_concatenated", "cat.total"), (FIRST, f"{FIRST}.total")], ids=["row", "tensor"]
)
def test_ties(published: Golden, name: str, expected: str) -> None:
    found = Ties(keep=published.case["hparams"]["density"]).merged(published.deltas(name), name="w")
    assert error(found, published.tensors[f"peft.ties.{expected}"]) < TOLERANCE


def test_task_arithmetic(published: Golden) -> None:
    found = Sum().merged(published.deltas(FIRST), name="w")
    assert error(found, published.tensors[f"peft.task_arithmetic.{FIRST}"]) < TOLERANCE


def test_dare_with_the_recorded_masks(published: Golden) -> None:
    density = published.case["hparams"]["density"]
    deltas, masks = published.deltas("edits_concatenated"), published.tensors["dare.masks"]
    thinned = [delta * mask / density for delta, mask in zip(deltas, masks, strict=True)]
    assert error(total(thinned), published.tensors["peft.dare_linear.cat"]) < TOLERANCE
    assert error(agreeing_mean(thinned), published.tensors["peft.dare_ties.cat"]) < TOLERANCE
