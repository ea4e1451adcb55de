"""The ranking of sites from the warehouse, for a terminal: a table, and the proposal in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from overedit.tasks.runs.run import Run
from overedit.tasks.warehouse.views import literal

Row = dict[str, Any]

MEASURES = ("reliability", "generalization", "locality", "capability_kept")
"""What the score is the mean of, as columns of `site_ranking`."""


class Ranking(NamedTuple):
    """The ranked sites of a run under one protocol, the best first."""

    run: str
    protocol: str
    validation: list[Row]
    """Rows of `site_ranking`; sites without a score are last."""
    test: list[Row]
    """The same on other edits; empty where none were asked for."""

    @property
    def proposed(self) -> Row | None:
        """The best site on the validation edits; None where no site has a score."""
        return next((row for row in self.validation if row["proposed"]), None)

    @property
    def proposed_on_test(self) -> Row | None:
        """The proposed site on the test edits."""
        best = self.proposed
        return next((row for row in self.test if best is not None and row["site"] == best["site"]), None)


def ranking_of(run: Run, protocol: str) -> Ranking:
    """Read the ranking of a run's sites.

    Args:
        run: The run, in its warehouse.
        protocol: The protocol under which answers are scored.
    """
    where = f"run = {literal(run.name)} AND coalesce(protocol, {literal(protocol)}) = {literal(protocol)}"
    sql = f"SELECT * FROM site_ranking WHERE {where} ORDER BY score DESC NULLS LAST, layer, part"
    rows = run.warehouse.query(sql).to_pylist()
    splits = {name: [row for row in rows if row["split"] == name] for name in ("validation", "test")}
    return Ranking(run.name, protocol, splits["validation"], splits["test"])


def best_sites(run: Run, protocol: str, count: int) -> tuple[str, ...]:
    """The best sites on the validation edits, layer by layer."""
    ranked = [row for row in ranking_of(run, protocol).validation if row["score"] is not None]
    chosen = sorted(ranked[:count], key=lambda row: (row["layer"], row["rank"]))
    return tuple(row["site"] for row in chosen)


def proposal(ranking: Ranking) -> str:
    """The proposal in sentences: the site and its interval, the next best, and what the test edits say."""
    best = ranking.proposed
    if best is None:
        return "proposes no site: none has a score"
    parts = [f"proposes {best['site']}: {_interval(best)}"]
    following = next((row for row in ranking.validation if row["rank"] == 2 and row["score"] is not None), None)
    if following is not None:
        parts.append(f"next best {following['site']}: {_interval(following)}, {_behind(following)}")
    tested = ranking.proposed_on_test
    if tested is not None:
        told = f"on {tested['edit_count']:,} test edits {best['site']}: {_interval(tested)}"
        first = ranking.test[0]
        same = f"the best of {len(ranking.test)} sites" if first is tested else f"{_behind(tested)} {first['site']}"
        parts.append(f"{told}, {same}")
    return "; ".join(parts)


def ranking_table(ranking: Ranking, most: int = 10) -> Table:
    """The best sites as a table for a terminal of 80 columns.

    Args:
        ranking: The ranking.
        most: The most rows.
    """
    measures = [name for name in MEASURES if any(row[name] is not None for row in ranking.validation)]
    short = {
        "reliability": "rel. %",
        "generalization": "gen. %",
        "locality": "loc. %",
        "capability_kept": "cap. kept %",
    }
    tests = {row["site"]: row for row in ranking.test}
    table = Table(
        title=Text(f"{ranking.run}: sites by their score, {ranking.protocol.replace('_', '-')} protocol"),
        padding=(0, 0),
        pad_edge=False,
    )
    table.add_column("site", no_wrap=True)
    heads = ["score", "95 %", *(short[name] for name in measures), *(["test"] if tests else []), "s"]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row in ranking.validation[:most]:
        test = [_two(tests.get(row["site"], {}).get("score"))] if tests else []
        low_to_high = "" if row["score"] is None else f"{_two(row['low'])}-{_two(row['high'])}"
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
        cells = [_two(row["score"]), low_to_high, *(_percent(row[name]) for name in measures), *test, seconds]
        table.add_row(row["site"], *cells)
    return table


def minutes(rows: Sequence[Row]) -> float:
    """The minutes that all sites of a ranking took, all seeds."""
    return sum((row["seconds"] or 0) * (row["num_seeds"] or 1) for row in rows) / 60


def _interval(row: Row) -> str:
    return f"{row['score']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


def _behind(row: Row) -> str:
    most, least = -row["behind_low"], -row["behind_high"]
    return f"{0 - row['behind']:.2f} ({least:.2f} to {most:.2f}) behind"


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
