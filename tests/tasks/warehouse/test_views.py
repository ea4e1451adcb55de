"""The files of SQL, the views that a query needs, and the macro of Wilson's interval."""

from __future__ import annotations

from pathlib import Path

import pytest

from overedit.tasks.warehouse.views import needed, view_names, view_sql
from overedit.tasks.warehouse.warehouse import Warehouse


def test_every_view_is_tested_and_says_what_it_is() -> None:
    tested = "".join(path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py"))
    for view in view_names():
        assert view_sql(view).startswith("-- ")
        assert f'"{view}"' in tested, f"{view} has no test"


def test_a_query_takes_what_it_names_and_what_that_reads() -> None:
    taken = needed("SELECT * FROM Capability_Change JOIN outcomes USING (run)")
    assert taken is not None and {"capability_change", "trajectories", "outcomes", "capability"} <= taken
    assert not {"leaderboard", "perplexity", "verdicts"} & taken
    assert needed("SELECT * FROM outcomes") == {"outcomes"}
    assert needed("SHOW TABLES") is None
    assert needed("") is None
    assert needed("SELECT 1") == set()
    for sql in ("SELECT * FROM information_schema.tables", "SELECT (TABLE sqlite_master)", "FROM duckdb_views()"):
        assert needed(sql) is None
    assert needed("SELECT * FROM leader_board") is None, "the error names every view"


def test_wilson_bounds_are_the_textbook_ones(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)

    def bounds(p: str, n: str) -> tuple[float | None, float | None]:
        row = warehouse.query(f"SELECT wilson_low({p}, {n}) AS low, wilson_high({p}, {n}) AS high").to_pylist()[0]
        return row["low"], row["high"]

    # 8 of 10: centre (0.8 + 0.19207) / 1.38415, half-width 1.95996 sqrt(0.016 + 0.0096036) / 1.38415
    assert bounds("0.8", "10") == pytest.approx((0.49016, 0.94332), abs=1e-5)
    assert bounds("0.0", "10") == pytest.approx((0.0, 0.27753), abs=1e-5)  # z^2 / (n + z^2)
    assert bounds("1.0", "10") == pytest.approx((0.72247, 1.0), abs=1e-5)
    assert bounds("NULL", "10") == (None, None)
    assert bounds("0.5", "0") == (None, None)
