"""Which settings a search keeps, with an objective that is a formula instead of a model."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import pytest

from overedit.editing.methods.base import MethodConfig, Range
from overedit.editing.methods.ft_m import FtM
from overedit.editing.requests import EditRequest
from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.evaluation.options import EvaluationOptions
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.runs.run import Run
from overedit.tasks.tune.bench import Bench, Split
from overedit.tasks.tune.options import Budget, Judging, TuneJob
from overedit.tasks.tune.search import Place, run_search
from overedit.tasks.warehouse.tables import Row


class FormulaBench:
    """Measures settings by a formula: the best learning rate is 1e-3, where the objective is 0.9."""

    def __init__(self) -> None:
        self.edits: dict[Split, list[EditRequest]] = {"validation": [], "test": []}
        self.texts: list[str] = []

    def rows(self, config: MethodConfig, split: Split, seed: int) -> Generator[Row, None, None]:
        rate = cast(FtM, config).learning_rate
        value = 0.9 - min(0.9, abs(rate - 1e-3) * 100)
        yield {"order_seed": seed, "edit_count": 1, "seconds": 0.0, "reported": value, "objective": value}


@pytest.mark.parametrize(("given", "is_kept"), [(1e-3, True), (9e-3, False)])
def test_the_given_settings_are_kept_unless_a_trial_is_better(
    tiny_model: Path, tmp_path: Path, given: float, is_kept: bool
) -> None:
    method = FtM(site="1.down_proj", learning_rate=given)
    judging = Judging(
        edit_counts=(1,), turn_size=1, seeds=(0,), evaluation=EvaluationOptions(), capability=CapabilityOptions()
    )
    job = TuneJob(
        model=ModelReference(str(tiny_model)),
        method=method,
        ranges={"learning_rate": Range(low=1e-4, high=1e-2, log=True)},
        budget=Budget(trials=8),
        judging=judging,
    )
    place = Place(run=Run("t", tmp_path, "m", "d"), trajectory="ft-m", label="FT-M", method="ft_m")
    bench: Any = FormulaBench()
    tuned = run_search(job, cast(Bench, bench), place)
    place.run.warehouse.publish()
    (row,) = place.run.warehouse.query("SELECT * FROM tuned_settings").to_pylist()
    assert (tuned.trial is None, row["kept"]) == (is_kept, "given" if is_kept else "trial")
    assert row["given_test"] is not None and row["test"] is not None, "both are measured on test edits"
    if is_kept:
        assert tuned.config == method
    else:
        assert tuned.trial == row["trial"]
        assert cast(FtM, tuned.config).learning_rate != given
        assert row["validation"] > row["given_validation"]
