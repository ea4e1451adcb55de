"""How a run's configuration completes its methods: what is given, then the run's covariance, then the preset."""

from __future__ import annotations

from typing import Any

import pytest

from overedit.editing.methods.memit import PRESETS as MEMIT
from overedit.editing.methods.registry import METHODS
from overedit.flows.config.loading import validated
from overedit.flows.config.models import BenchmarkConfig

ACCEPTED = ", ".join(map(repr, METHODS))


def config(*methods: dict[str, Any], **more: Any) -> BenchmarkConfig:
    given = {"name": "r", "dataset": {"name": "pocket"}, "methods": list(methods)}
    return BenchmarkConfig.model_validate(given | more)


def test_a_nested_field_that_is_given_leaves_the_rest_of_the_preset() -> None:
    (memit,) = config({"method": "memit", "values": {"num_steps": 3}}).methods
    preset = MEMIT["pocket"]
    assert memit.values == preset.values.model_copy(update={"num_steps": 3})
    assert memit.layers == preset.layers
    assert memit.covariance == preset.covariance


def test_the_runs_covariance_is_for_methods_that_need_one() -> None:
    methods = ({"method": "memit"}, {"method": "ft_m"}, {"method": "rome", "covariance": {"num_samples": 7}})
    made = config(*methods, covariance={"corpus": "a.txt", "max_length": 9})
    memit, ft_m, rome = made.methods
    assert (memit.covariance.corpus, memit.covariance.max_length) == ("a.txt", 9)
    assert memit.covariance.num_samples == MEMIT["pocket"].covariance.num_samples
    assert not hasattr(ft_m, "covariance")
    assert (rome.covariance.corpus, rome.covariance.num_samples) == ("a.txt", 7)
    assert BenchmarkConfig.model_validate(made.model_dump()) == made
    assert BenchmarkConfig.model_validate_json(made.model_dump_json()) == made


def test_what_the_runs_covariance_cannot_be() -> None:
    with pytest.raises(ValueError, match="num_samples"):
        config({"method": "memit"}, covariance={"corpus": "a.txt", "num_samples": 0})


def test_two_of_a_kind_are_told_apart() -> None:
    labels = config({"method": "emmet", "batch_size": 1}, {"method": "emmet", "batch_size": 16}).labels
    assert labels == ("EMMET (batch_size=1)", "EMMET (batch_size=16)")
    four, eight = ({"method": "emmet", "shards": {"count": count, "merge": "pcb"}} for count in (4, 8))
    assert config(four, eight).labels == ("EMMET (shards=4 x pcb)", "EMMET (shards=8 x pcb)")
    finer = {"method": "emmet", "shards": {"count": 4, "merge": {"kind": "pcb", "keep": 0.05}}}
    assert config(four, finer, {"method": "emmet"}).labels == (
        "EMMET (shards=4 x pcb)", "EMMET (shards=4 x pcb(keep=0.05))", "EMMET (shards=None)",
    )  # fmt: skip


def test_a_restraint_is_named_in_short() -> None:
    kinds = ("rect", {"kind": "prune", "base": 1.2}, None)
    labels = config(*({"method": "ultraedit", "sites": ["1.down_proj"], "restraint": kind} for kind in kinds)).labels
    assert labels == (
        "UltraEdit (restraint=rect)",
        "UltraEdit (restraint=prune(base=1.2))",
        "UltraEdit (restraint=None)",
    )


def test_a_gate_needs_a_probe() -> None:
    gated = {"tasks": ["mmlu"], "when": "gated"}
    with pytest.raises(ValueError, match=r"capability.when: 'gated' needs perplexity.corpus"):
        config({"method": "ultraedit"}, capability=gated)
    assert config({"method": "ultraedit"}, capability=gated, perplexity={"corpus": "pocket"}).capability.when == "gated"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"capability": {"when": "gated"}},
            "capability.when: 'gated' needs perplexity.corpus, since perplexity decides where capability is "
            "measured; without one 'every', 'last' and 'never' are accepted",
        ),
        (
            {"presets": ["butterfly"]},
            "presets: butterfly needs perplexity.corpus: the sentences of ME-PPL, a local file",
        ),
        ({"methods": [{"method": "rom"}]}, f"methods.0.method: unknown 'rom'; accepted: {ACCEPTED}"),
        ({"perplexity": None}, "perplexity: a mapping of keys to values is expected (given: None)"),
    ],
)
def test_a_mistake_is_one_line_with_nothing_beside_it(given: dict[str, Any], said: str) -> None:
    content = {"name": "r", "dataset": {"name": "pocket"}, "methods": [{"method": "ultraedit"}]} | given
    with pytest.raises(ValueError) as caught:
        validated(BenchmarkConfig, content, where="c.yaml")
    assert str(caught.value) == f"c.yaml:\n  {said}"


@pytest.mark.parametrize(
    ("counts", "message"),
    [([0], r"\[0\] names no count of edits"), ([10, 1], r"edit_counts\n  Value error, \[10, 1\] must increase")],
)
def test_counts_that_are_none_are_said_once(counts: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config({"method": "ultraedit"}, edit_counts=counts)


def test_where_the_weights_lie_reaches_the_editing_job_and_is_checked() -> None:
    made = config({"method": "ft_m"}, editing={"offload": "disk"})
    assert [each.job.placement.offload for each in made.trajectories()] == ["disk"]
    with pytest.raises(ValueError, match=r"editing.offload: .*'none', 'cpu' or 'disk' .given: 'tape'"):
        validated(BenchmarkConfig, {"name": "r", "dataset": {"name": "pocket"}, "methods": ["ft_m"],
                                    "editing": {"offload": "tape"}}, where="r.yaml")  # fmt: skip
