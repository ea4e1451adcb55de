"""All views together on the made-up run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.synthetic_run import RUN, fill, fill_samples
from tests.support.view_bench import Row


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """The made-up run with its single items."""
    warehouse = fill(tmp_path_factory.mktemp("made_up"), cases=20)
    fill_samples(warehouse)
    return warehouse


def test_the_documentations_queries_are_answered(made_up: Warehouse, repository: Path) -> None:
    page = (repository / "docs" / "collapse.md").read_text()
    queries = re.findall(r'overedit sql "([^"]+)"', page)
    assert len(queries) == page.count("overedit sql") == 7
    for query in queries:
        assert made_up.query(query.replace("pocket-collapse", RUN)).num_rows, query


def test_the_views_agree_on_the_made_up_run(made_up: Warehouse) -> None:
    with made_up.connect(run=RUN) as connection:

        def ask(sql: str) -> list[Row]:
            return list(connection.sql(sql).to_arrow_table().to_pylist())

        collapses = {row["trajectory"]: row["capability_at"] for row in ask("FROM collapse_point")}
        assert collapses == {"locft_bf": None, "ultraedit": None, "ft_l": 10}
        practical = ask("FROM collapse_definitions WHERE definition = 'practical'")
        assert {row["trajectory"]: row["collapse_at"] for row in practical} == collapses
        assert all(row["collapse_at"] == collapses[row["trajectory"]] for row in ask("FROM capability_gating"))
        assert all(row["collapse_at"] == collapses[row["trajectory"]] for row in ask("FROM early_warning"))
        changes = ask("FROM capability_change WHERE task = 'all' AND trajectory = 'ft_l'")
        assert [row["n"] for row in changes] == [600] * 4
        assert [row["p_adjusted"] < 0.05 for row in changes] == [True] * 4
        unhurt = ask("FROM capability_change WHERE task = 'all' AND trajectory = 'locft_bf' AND edit_count = 1")
        assert unhurt[0]["p_adjusted"] > 0.05 and unhurt[0]["low"] < 0 < unhurt[0]["high"]
        best = ask("FROM probe_correlation WHERE method = 'all' AND probe = 'log_perplexity_ratio'")
        assert best[0]["num_points"] == 12 and best[0]["spearman"] < -0.9
        assert len(ask("FROM leaderboard WHERE p_adjusted IS NOT NULL")) == 3
        assert {row["num_orders"] for row in ask("FROM seed_bands WHERE measure = 'capability'")} == {1}
