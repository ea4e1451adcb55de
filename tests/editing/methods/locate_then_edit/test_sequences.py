"""Methods that remember earlier batches: their identities, and what they keep between turns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from overedit.editing.methods.registry import METHODS
from overedit.editing.model.weights import LowRank, apply_update
from tests.support.quick_methods import covariance_of, quick_settings
from tests.support.teachable_models import byte_tokenizer, some_requests
from tests.support.tiny_models import tiny

METHODS_WITH_MEMORY = ("memit_seq", "rlsedit", "betaedit", "alphaedit")


def two_turns(name: str, family: str = "llama", **settings: Any) -> list[Any]:
    """The results of two turns of three edits, float64, one after the other."""
    model = tiny(family, dtype=torch.float64)
    config = METHODS[name].config(**quick_settings(METHODS[name].config) | settings)
    results: list[Any] = []
    state: dict[str, torch.Tensor] = {}
    for first in (0, 3):
        requests = some_requests(6)[first : first + 3]
        results.append(
            METHODS[name].function(
                model, byte_tokenizer(), requests, config, state, seed=3, **covariance_of(name, tiny(family))
            )
        )
        state = results[-1].state
        apply_update(model, results[-1].update)
    return results


def changes(results: list[Any]) -> list[dict[str, torch.Tensor]]:
    return [
        {name: change.left @ change.right for name, change in result.update.items() if isinstance(change, LowRank)}
        for result in results
    ]


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).norm() / other[name].norm()) for name in other)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_first_turn_is_memits_and_the_second_is_not(family: str) -> None:
    memit, sequence = (changes(two_turns(name, family, covariance_weight=3.0)) for name in ("memit", "memit_seq"))
    assert distance(sequence[0], memit[0]) < 1e-6
    assert distance(sequence[1], memit[1]) > 1e-4


@pytest.mark.parametrize("ridge", [0.0, 2.0])
def test_the_recursion_is_the_accumulated_system(ridge: float) -> None:
    direct = changes(two_turns("memit_seq", covariance_weight=3.0, ridge=ridge**2))
    recursive = changes(two_turns("rlsedit", covariance_weight=3.0, ridge=ridge))
    assert [distance(*pair) < 1e-6 for pair in zip(recursive, direct, strict=True)] == [True, True]


def test_without_a_weight_of_the_covariance_betaedit_is_alphaedit_until_its_projector_is_refreshed() -> None:
    alphaedit = changes(two_turns("alphaedit", ridge=2.0))
    beta = changes(two_turns("betaedit", ridge=2.0, covariance_weight=1e-12, refresh_every=100))
    refreshed = changes(two_turns("betaedit", ridge=2.0, covariance_weight=1e-12, refresh_every=3))
    assert distance(beta[0], alphaedit[0]) < 1e-6
    assert distance(beta[1], alphaedit[1]) < 1e-6
    assert distance(refreshed[1], alphaedit[1]) > 1e-3


@pytest.mark.parametrize("name", METHODS_WITH_MEMORY)
def test_keys_are_those_that_would_be_read_after_the_turn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer's keys do not depend on the write to it: reading them again would give the same bits."""
    from overedit.editing.methods.locate_then_edit import algorithm

    used: dict[str, torch.Tensor] = {}
    again: dict[str, torch.Tensor] = {}

    class Reading(algorithm.SubjectActivations):
        def keys(self, site: str) -> Any:
            found = super().keys(site)
            used[site] = found.mean_IN
            for earlier in used:
                again[earlier] = super().keys(earlier).mean_IN
            return found

    monkeypatch.setattr(algorithm, "SubjectActivations", Reading)
    two_turns(name)
    assert used and all(torch.equal(used[site], again[site]) for site in used)
