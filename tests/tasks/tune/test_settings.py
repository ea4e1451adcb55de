"""Settings in the words of the search: every method's ranges, and what trials are pruned and judged by."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest

from overedit.editing.methods.base import Range
from overedit.editing.methods.memit import Memit
from overedit.editing.methods.registry import METHODS
from overedit.tasks.tune.leakage import among, marks_of
from overedit.tasks.tune.objective import (
    Capability,
    cheap_score,
    kept_share,
    objective,
    outcome_means,
    perplexity_ratio,
)
from overedit.tasks.tune.search import STARTUP, StepMedianPruner
from overedit.tasks.tune.settings import check_ranges, chosen_settings, distributions, with_chosen
from tests.support.quick_methods import config_of
from tests.support.teachable_models import some_requests


@pytest.mark.parametrize("name", METHODS)
def test_every_method_declares_ranges_that_it_accepts(name: str) -> None:
    method = METHODS[name]
    preset = method.presets.get("pocket", config_of(name))
    assert method.ranges
    assert len(list(check_ranges(preset, method.ranges))) == sum(len(each.examples) for each in method.ranges.values())
    trial = optuna.create_study().ask(distributions(method.ranges))
    settings = chosen_settings(trial.params, method.ranges)
    config = with_chosen(preset, settings)
    assert type(config) is type(preset)
    for key, value in settings.items():
        here: Any = config
        for step in key.split("."):
            here = getattr(here, step)
        assert here == value
    unsearched = {"values", *(key.split(".")[0] for key in settings)}
    assert config.model_dump(exclude=unsearched) == preset.model_dump(exclude=unsearched), "the rest stays"


def test_a_setting_of_a_group_leaves_the_rest_of_the_group() -> None:
    preset = METHODS["memit"].presets["pocket"]
    assert isinstance(preset, Memit)
    config = with_chosen(preset, {"values.learning_rate": 0.7})
    assert config.values == preset.values.model_copy(update={"learning_rate": 0.7})  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, 5], {"low": 1, "high": 5}),
        ([0.1, 5], {"low": 0.1, "high": 5}),
        (["1e-5", 1], {"low": 1e-5, "high": 1}),
        ([1, 2, 3], {"choices": (1, 2, 3)}),
        ([[0], [0, 1]], {"choices": ([0], [0, 1])}),
        ([True, False], {"choices": (True, False)}),
        ({"low": 1, "high": 10, "log": True}, {"low": 1, "high": 10, "log": True}),
    ],
)
def test_ranges_have_short_forms(given: Any, expected: dict[str, Any]) -> None:
    assert Range.model_validate(given).model_dump(exclude_unset=True) == expected


@pytest.mark.parametrize(
    "given", [[2, 1], {"low": 0, "high": 1, "log": True}, [], {"low": 1}, {"choices": [1], "low": 0}]
)
def test_what_is_no_range_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match=r"accepted: low below high|at least one"):
        Range.model_validate(given)


def test_the_objective_is_the_harmonic_mean_of_the_measures_there_are() -> None:
    assert objective({"reliability": 1.0, "generalization": 0.5, "locality": 0.5, "capability_kept": 0.5}) == 4 / 7
    assert objective({"reliability": 0.0, "generalization": 0.0, "locality": 1.0, "capability_kept": 1.0}) == 0
    assert objective({"reliability": 1.0, "generalization": None, "locality": 0.5}) == pytest.approx(2 / 3)
    assert objective({}) is None
    rows = [
        {"probe": "edit", "protocol": "generated", "score": 1.0, "agreement": None},
        {"probe": "edit", "protocol": "generated", "score": 0.0, "agreement": None},
        {"probe": "edit", "protocol": "generated", "score": None, "agreement": None},
        {"probe": "locality", "protocol": "generated", "score": 0.0, "agreement": 1.0},
    ]
    assert outcome_means(rows) == {"reliability": 0.5, "reliability_n": 2, "locality": 1.0, "locality_n": 1}


def test_capability_is_counted_less_chance() -> None:
    scores = [
        {"main": True, "part_of": None, "value": 0.8, "num_samples": 10, "chance": 0.2},
        {"main": True, "part_of": None, "value": 0.6, "num_samples": 20, "chance": None},
        {"main": False, "part_of": None, "value": 9.0, "num_samples": 10, "chance": None},
        {"main": True, "part_of": "a group", "value": 9.0, "num_samples": 10, "chance": None},
    ]
    before = Capability.of(scores)
    assert before == (pytest.approx(0.7), 30, pytest.approx(0.1))
    assert before is not None
    assert kept_share(0.4, before) == pytest.approx(0.5)
    assert (kept_share(0.0, before), kept_share(0.9, before)) == (0.0, 1.0)
    assert kept_share(0.4, Capability(0.1, 30, 0.1)) is None
    assert Capability.of([]) is None


def test_the_cheap_score_falls_with_perplexity_and_not_below_zero() -> None:
    assert perplexity_ratio([[1.0, 3.0]], 1.0) == pytest.approx(math.e)
    assert perplexity_ratio([[math.nan]], 1.0) == perplexity_ratio([[9e9]], 1.0) == math.inf
    assert (cheap_score(0.8, 0.5), cheap_score(0.8, 2.0), cheap_score(0.8, math.inf)) == (0.8, 0.4, 0.0)
    assert cheap_score(None, None) == 0.0


def test_a_trial_is_pruned_by_its_value_at_this_step_not_by_its_best() -> None:
    study = optuna.create_study(direction="maximize", pruner=StepMedianPruner())
    for _ in range(STARTUP):
        trial = study.ask()
        trial.report(0.9, 0)
        trial.report(0.5, 1)
        assert not trial.should_prune()
        study.tell(trial, 0.5)
    trial = study.ask()
    trial.report(1.0, 0)
    assert not trial.should_prune()
    trial.report(0.4, 1)
    assert trial.should_prune(), "its first value is the best of all"


def test_edits_are_the_same_by_a_prompt_a_phrasing_or_a_case() -> None:
    first, second, third = some_requests(3)
    marks = marks_of([first], "zsre").edits
    phrased = second.model_copy(update={"rephrase_prompts": (f"{first.prompt} ",), "case_id": "x"})
    same_case = third.model_copy(update={"case_id": first.case_id})
    other = third.model_copy(update={"case_id": "y"})
    assert among([phrased, other], "zsre", marks) == [phrased]
    assert among([same_case], "zsre", marks) == [same_case]
    assert among([same_case], "counterfact", marks) == [], "another dataset has its own case ids"
    assert among([same_case], "file", marks_of([first], "file").edits) == [], "and so has every file"
