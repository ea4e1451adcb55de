"""What papers' protocols make of a configuration."""

from __future__ import annotations

from typing import Any

import pytest

from overedit.flows.config.loading import validated
from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.config.presets import asked_of_run, presets_table
from overedit.tasks.evaluation.options import EvaluationOptions
from overedit.tasks.evaluation.paper_protocols import PRESETS, Preset


def config(*presets: str, **more: Any) -> BenchmarkConfig:
    given = {"name": "r", "dataset": {"name": "pocket"}, "methods": [{"method": "ft_m"}], "presets": list(presets)}
    return validated(BenchmarkConfig, given | more, where="here")


def test_presets_fill_what_is_not_given() -> None:
    made = config("wild", "ultraedit")
    assert made.evaluation == EvaluationOptions(
        protocols=("generated", "teacher_forced"),
        probes=("edit", "rephrase", "locality"),
        max_rephrase=1,
        max_locality=1,
    )
    assert config().evaluation == EvaluationOptions()
    assert BenchmarkConfig.model_validate(made.model_dump()) == made
    assert BenchmarkConfig.model_validate_json(made.model_dump_json()) == made


def test_what_is_given_stays() -> None:
    made = config("wild", evaluation={"max_tokens": 64, "probes": ["edit"]})
    assert (made.evaluation.max_tokens, made.evaluation.probes) == (64, ("edit",))
    assert made.evaluation.protocols == ("generated",)
    whole = config("wild", evaluation=EvaluationOptions(max_tokens=5))
    assert whole.evaluation == EvaluationOptions(max_tokens=5)


def test_presets_are_united() -> None:
    made = config("wild", "counterfact", "wise", "butterfly", perplexity={"corpus": "me_ppl.json"})
    assert made.evaluation.protocols == ("generated", "probability", "teacher_forced")
    assert made.evaluation.probes == ("edit", "rephrase", "locality", "text")
    assert (made.evaluation.max_rephrase, made.evaluation.max_locality, made.evaluation.text_tokens) == (2, 10, 100)
    assert (made.edit_counts, made.perplexity.limit) == ((1, 10, 100, 1000), None)
    both = config("wise", "should-we-edit", capability={"limit": 10})
    assert both.edit_counts == (1, 5, 10, 20, 30, 50, 100, 500, 1000)
    assert (both.capability.suite, both.capability.limit) == ("should-we-edit", 10)
    assert config("should-we-edit", capability={"suite": "quick"}).capability.suite == "quick"
    assert config("wise", edit_counts=[3]).edit_counts == (3,)


def test_two_that_cannot_be_asked_at_once_are_named() -> None:
    other = Preset("longer", "Longer", (), {"evaluation": {"max_tokens": 50}}, ())
    with pytest.raises(ValueError, match=r"wild asks for evaluation.max_tokens: 32, and longer for 50"):
        asked_of_run([PRESETS["wild"], other], {})
    asked = asked_of_run([PRESETS["wild"], other], {"evaluation": {"max_tokens": 40}})
    assert "max_tokens" not in asked["evaluation"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["wlid"], r"presets: unknown preset 'wlid'; did you mean 'wild'\? \(known: wild, ultraedit"),
        ([3], "presets: unknown preset 3 "),
        ("wild", r"presets: a list of presets is expected"),
        (["butterfly"], "presets: butterfly needs perplexity.corpus: the sentences of ME-PPL"),
    ],
)
def test_what_is_wrong_is_said(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(presets=given)


def test_the_list_shows_every_preset() -> None:
    table = presets_table()
    assert list(table.columns[0].cells) == list(PRESETS)
    asks = dict(zip(PRESETS, table.columns[3].cells, strict=True))
    assert str(asks["wild"]).startswith("evaluation:\n  protocols: generated\n")
    assert r"  stop: '.', '\n'" in str(asks["wild"])
    assert "perplexity.corpus (yours)" in str(asks["butterfly"])
