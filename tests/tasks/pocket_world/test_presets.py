"""The pocket world's presets: each comes from the stored search, and no benchmark has an edit that it saw."""

from __future__ import annotations

from pathlib import Path

import pytest

from overedit.editing.methods.registry import METHODS
from overedit.flows.config.loading import named_content, validated
from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.config.preset_files import read_preset
from overedit.flows.plan import make_plan
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.tune.preset_file import SHIPPED, provenance_rows
from tests.support.command_line import Run

FILES = sorted(SHIPPED.glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_methods_preset_is_that_of_the_stored_search(file: Path) -> None:
    preset = read_preset(f"pocket/{file.stem}", key="preset")
    method = METHODS[preset.method]
    assert method.presets["pocket"] == method.config.model_validate({"method": preset.method} | preset.settings)
    (row,) = [row for row in provenance_rows("pocket").to_pylist() if row["label"] == method.label]
    assert preset.provenance.trial == (row["trial"] if row["kept"] == "trial" else None)
    assert preset.provenance.model_digest == ModelReference("pocket").digest, "the shipped model has changed since"


def test_every_preset_of_the_pocket_world_was_searched_with_the_same_budget(overedit: Run) -> None:
    presets = [read_preset(f"pocket/{file.stem}", key="preset") for file in FILES]
    assert {preset.method for preset in presets} == {name for name in METHODS if "pocket" in METHODS[name].presets}
    searches = {(p.provenance.trials, p.provenance.edit_counts, p.provenance.seeds, p.tuned_on) for p in presets}
    assert len(searches) == 1
    assert {row["num_trials"] for row in provenance_rows("pocket").to_pylist()} == {presets[0].provenance.trials}
    code, out, _ = overedit("presets", "--provenance", "pocket")
    assert code == 0 and all(METHODS[preset.method].label in out for preset in presets)


@pytest.mark.parametrize("name", ["demo", "nightly", "pocket-collapse", "pocket-sequential", "pocket-search"])
def test_no_benchmark_has_an_edit_that_the_search_saw(name: str, tmp_path: Path) -> None:
    content = named_content(name)[0] | {"home": str(tmp_path)}
    content["methods"] = [{"preset": "pocket/ft-l"}]
    assert make_plan(validated(BenchmarkConfig, content, where=name)).last_count > 0


def test_the_documentation_has_the_figures_of_the_search(repository: Path) -> None:
    text = (repository / "docs" / "tuning.md").read_text()
    for row in provenance_rows("pocket").to_pylist():
        interval = f"{row['test']:.2f} ({row['test_low']:.2f} to {row['test_high']:.2f})"
        kept = f"trial {row['trial']}" if row["kept"] == "trial" else "given"
        given = f"{row['given_validation']:.2f} | {row['given_test']:.2f}"
        assert f"| {row['label']} | {row['validation']:.2f} | {interval} | {given} | {kept} |" in text
