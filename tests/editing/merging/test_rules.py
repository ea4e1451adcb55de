"""Merging rules: their identities, and that they change neither their inputs nor the random state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from overedit.editing.merging import rules
from overedit.editing.merging.rules import AnyMerge, DareLinear, DareTies, Mean, Merge, Pcb, Sum, Ties, agreeing_mean

RULES = (
    Sum(),
    Mean(),
    Ties(),
    DareLinear(drop=0.5),
    DareTies(drop=0.5),
    Pcb(),
    Pcb(variant="nlp"),
    Pcb(variant="vision"),
    Pcb(variant="evolution"),
)


def changes(count: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(12, 20, generator=generator) for _ in range(count)]


def disjoint(count: int) -> list[torch.Tensor]:
    """Changes of which each has a part of the entries for itself."""
    owner = torch.randint(0, count, (12, 20), generator=torch.Generator().manual_seed(9))
    return [change * (owner == index) for index, change in enumerate(changes(count))]


def merged(rule: Merge, deltas: list[torch.Tensor]) -> torch.Tensor:
    return rule.merged(deltas, name="w")


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_one_change_is_itself_and_inputs_and_random_numbers_are_left_alone(rule: Merge) -> None:
    (alone,) = changes(1)
    assert merged(rule.model_copy(update={"scale": 1.3}), [alone]) is alone
    deltas, random = changes(3), torch.get_rng_state()
    first = merged(rule, deltas)
    assert torch.equal(first, merged(rule, deltas))
    assert all(torch.equal(one, other) for one, other in zip(deltas, changes(3), strict=True))
    assert torch.equal(torch.get_rng_state(), random)
    assert (first.shape, first.dtype) == (deltas[0].shape, torch.float32)
    torch.testing.assert_close(merged(rule.model_copy(update={"scale": 1.3}), deltas), 1.3 * first)


@pytest.mark.parametrize("rule", [rule for rule in RULES if not isinstance(rule, DareLinear | DareTies)], ids=str)
def test_the_order_of_the_shards_makes_no_difference(rule: Merge) -> None:
    first, second, third, fourth = (delta.double() for delta in changes(4))
    torch.testing.assert_close(
        merged(rule, [first, second, third, fourth]), merged(rule, [third, first, fourth, second])
    )


@pytest.mark.parametrize("rule", [Sum(), Ties(keep=1), DareLinear(drop=0), DareTies(drop=0)], ids=str)
def test_changes_of_different_entries_merge_to_their_sum(rule: Merge) -> None:
    deltas = disjoint(3)
    assert torch.equal(merged(rule, deltas), torch.stack(deltas).sum(0))


@pytest.mark.parametrize("variant", ["root", "nlp", "vision", "evolution"])
def test_pcb_of_different_entries_is_their_sum_but_for_the_clipped_tails(variant: Any) -> None:
    """Of 240 entries 0.01 % clip the largest alone, and 1 % the three largest; those that are 0 stay 0."""
    deltas = disjoint(3)
    found = merged(Pcb(keep=1, variant=variant), deltas)
    for delta in deltas:
        ends = delta.abs().reshape(-1).sort().values[-2 if variant == "root" else -4]
        inside = (delta != 0) & (delta.abs() <= ends)
        torch.testing.assert_close(found[inside], delta[inside])
        torch.testing.assert_close(found[delta.abs() > ends].abs(), ends.expand(int((delta.abs() > ends).sum())))


def test_ties_of_equal_changes_is_the_change_where_nothing_is_trimmed() -> None:
    (delta,) = changes(1)
    torch.testing.assert_close(merged(Ties(keep=1), [delta] * 3), delta)
    trimmed = merged(Ties(keep=0.2), [delta] * 3)
    assert int((trimmed != 0).sum()) == 48
    torch.testing.assert_close(trimmed[trimmed != 0], delta[trimmed != 0])


def test_ties_takes_the_mean_of_those_with_the_elected_sign() -> None:
    """Entry by entry: agreeing, the larger side of a conflict, a tie (positive), and one that is 0."""
    first, second, third = (
        torch.tensor([1.0, 5.0, 2.0, 0.0]),
        torch.tensor([3.0, -1.0, -2.0, 0.0]),
        torch.tensor([2.0, -1.0, 0.0, -4.0]),
    )
    assert agreeing_mean([first, second, third]).tolist() == [2.0, 5.0, 2.0, -4.0]


def test_the_election_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = agreeing_mean(changes(3))
    monkeypatch.setattr(rules, "_BLOCK", 7)
    assert torch.equal(agreeing_mean(changes(3)), whole)


def test_dare_keeps_the_mean_over_seeds_and_its_choice_differs_by_shard_and_tensor() -> None:
    deltas = changes(2)
    found = torch.stack([merged(DareLinear(drop=0.5, seed=seed), deltas) for seed in range(1000)]).mean(0)
    assert float((found - sum(deltas)).norm() / sum(deltas).norm()) < 0.05
    one, other = DareLinear(drop=0.5).thinned([torch.ones(12, 20)] * 2, "w")
    assert not torch.equal(one, other)
    assert set(one.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(one, DareLinear(drop=0.5).thinned([torch.ones(12, 20)], "v")[0])


def test_changes_of_nothing_merge_to_nothing_and_a_nan_stays_one() -> None:
    for rule in RULES:
        assert not merged(rule, [torch.zeros(12, 20)] * 3).any()
        broken = changes(3)
        broken[1][0, 0] = float("nan")
        assert not merged(rule, broken).isfinite().all(), rule
        assert merged(rule, [torch.tensor([0.5]), torch.tensor([0.25])]).shape == (1,)


def test_a_configuration_names_a_rule_by_its_kind_or_with_settings() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(AnyMerge)
    assert adapter.validate_python("pcb") == Pcb(keep=0.1, variant="root", scale=1)
    assert adapter.validate_python({"kind": "ties", "keep": 1}) == Ties(keep=1)
    for rule in RULES:
        assert adapter.validate_json(rule.model_dump_json()) == rule
        assert all(field.description for name, field in type(rule).model_fields.items() if name != "kind")
    with pytest.raises(ValidationError, match="'sum', 'mean', 'ties', 'dare_linear', 'dare_ties', 'pcb'"):
        adapter.validate_python("slerp")
    with pytest.raises(ValidationError, match="keep"):
        adapter.validate_python({"kind": "pcb", "keep": 0})
