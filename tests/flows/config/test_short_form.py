"""The short form of a configuration: what a form gives, over a configuration or instead of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from overedit.flows.config.loading import named_content, validated
from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.config.short_form import ShortForm


def test_a_configuration_alone_is_that_configuration() -> None:
    assert ShortForm("nightly").content() == named_content("nightly")[0]
    assert ShortForm("nightly", values={"dataset.limit": 0, "edit_counts": []}).content()["name"] == "nightly"


def test_without_a_configuration_the_values_are_one() -> None:
    form = ShortForm(dataset="zsre", methods=("memit", "ft_m"), values={"edit_counts": [1, 10], "dataset.limit": 0})
    config = validated(BenchmarkConfig, form.content(), where=form.where)
    assert (config.name, config.model, config.dataset.name) == ("pocket-zsre-memit-ft-m", "pocket", "zsre")
    assert [method.method for method in config.methods] == ["memit", "ft_m"]
    assert config.edit_counts == (1, 10)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"model": "/models/mine"}, "mine-pocket-locft-bf-ultraedit-ft-m"),
        ({"methods": ("ft_m",)}, "pocket-pocket-ft-m"),
        ({"values": {"dataset.limit": 10}}, "pocket-pocket-locft-bf-ultraedit-ft-m"),
        ({"settings": {"turn_size": 10}}, "pocket-pocket-locft-bf-ultraedit-ft-m"),
        ({"settings": {"name": "other"}}, "other"),
        ({"name": "mine", "methods": ("ft_m",)}, "mine"),
    ],
)
def test_a_changed_configuration_does_not_keep_the_name(changed: dict[str, Any], name: str) -> None:
    assert ShortForm("nightly", **changed).content()["name"] == name


def test_a_long_name_is_cut_and_stays_distinct() -> None:
    names = {ShortForm(model="x" * 80, dataset=dataset, methods=("ft_m",)).content()["name"] for dataset in ("a", "b")}
    assert len(names) == 2
    assert {len(name) for name in names} == {64}


def test_methods_keep_the_settings_that_the_configuration_has_for_them(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    methods = [{"method": "ft_m", "site": "1.down_proj"}, {"method": "ft_m", "site": "0.down_proj"}, "rome"]
    path.write_text(yaml.safe_dump({"name": "r", "dataset": {"name": "file", "path": "x.json"}, "methods": methods}))
    assert ShortForm(str(path), methods=("ft_m", "memit")).content()["methods"] == [*methods[:2], {"method": "memit"}]
    same, other = (ShortForm(str(path), dataset=dataset).content()["dataset"] for dataset in ("file", "zsre"))
    assert (same, other) == ({"name": "file", "path": "x.json"}, {"name": "zsre"})


def test_an_unknown_method_or_dataset_is_named_with_what_is_accepted() -> None:
    form = ShortForm(dataset="nonsense", methods=("memitt",))
    with pytest.raises(ValueError, match=r"(?s)the parameters:.*memitt.*accepted.*memit") as error:
        validated(BenchmarkConfig, form.content(), where=form.where)
    assert "nonsense" in str(error.value)
