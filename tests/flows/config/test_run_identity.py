"""A name that was used is refused for another configuration; the message names the keys that differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.config.run_identity import check_same_configuration, run_of, write_configuration


def configuration(home: Path, **others: Any) -> BenchmarkConfig:
    methods = [{"method": "ft_m", "site": "1.down_proj"}, {"method": "ft_l", "site": "1.down_proj"}]
    return BenchmarkConfig.model_validate(
        {"name": "r", "home": str(home), "dataset": {"name": "pocket"}, "methods": methods, **others}
    )


@pytest.mark.parametrize(
    ("others", "line"),
    [
        ({"turn_size": 7}, "  turn_size: was 100, is now 7"),
        ({"evaluation": {"sample": 5}}, "  evaluation.sample: was null, is now 5"),
        ({"edit_counts": [1, 20]}, "  edit_counts: "),
    ],
)
def test_the_message_names_the_key_inside_a_section(tmp_path: Path, others: dict[str, Any], line: str) -> None:
    config = configuration(tmp_path, edit_counts=[1, 10, 100])
    write_configuration(run_of(config), config)
    with pytest.raises(ValueError, match="different configuration") as caught:
        check_same_configuration(run_of(config), configuration(tmp_path, **{"edit_counts": [1, 10, 100], **others}))
    lines = str(caught.value).splitlines()[1:-1]
    assert [text for text in lines if not text.startswith(line)] == []
    assert len(lines) == 1


def test_one_entry_of_a_list_is_named_by_its_place(tmp_path: Path) -> None:
    ft_m = {"method": "ft_m", "site": "1.down_proj"}
    before, now = (configuration(tmp_path, methods=[ft_m, {"method": "ft_l", "max_steps": steps}]) for steps in (2, 3))
    write_configuration(run_of(before), before)
    with pytest.raises(ValueError, match=r"\n  methods\.1\.max_steps: was 2, is now 3\n"):
        check_same_configuration(run_of(now), now)
