"""The page of a search for settings: one HTML file without scripts, which loads nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from html import escape

from overedit.tasks.report.figures import COLORS
from overedit.tasks.report.formatting import rounded
from overedit.tasks.report.html import DASH, percent, table
from overedit.tasks.report.web_page import WEB, facts_list, fill_page, joined
from overedit.tasks.warehouse.tables import Row

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 420, 220, 42, 28
"""Of a chart and its margins, in pixels."""

_PAGE = """\
<body>
<header>
<p class="eyebrow">Overedit · {{run}}</p>
<h1>Which settings suit {{model}}?</h1>
<dl class="facts">{{facts}}</dl>
</header>
<main>
<section>
<h2>Chosen settings, validation against test</h2>
{{chosen}}
<p class="note">Percent, with 95 % intervals. The objective is the harmonic mean of reliability, generalization and
locality (generated protocol) and the share of capability kept, at the last edit count, averaged over the seeds.
Validation is the best of all trials, so it flatters the settings; test edits were measured once, with the chosen
settings. Given: the settings before the search, on the same test edits; they are kept where no trial is better on
validation edits.</p>
</section>
<section>
<h2>The search</h2>
<div class="charts">{{charts}}</div>
<p class="note">A dot is a trial on validation edits, the line the best so far, a cross a pruned trial. The square is
the chosen trial on test edits with its interval; the dashed line is the given settings on test edits.</p>
</section>
<section>
<h2>All trials</h2>
{{trials}}
</section>
<section>
<h2>Ask for it</h2>
<pre>{{sql}}</pre>
</section>
</main>
</body>
</html>
"""


def render_tuning(run: str, chosen: Sequence[Row], trials: Sequence[Row]) -> str:
    """The page as HTML. Its content security policy forbids scripts, and forbids it to load anything.

    Args:
        run: The name of the search.
        chosen: Rows of `tuned_settings`; at least one.
        trials: Rows of `tuning_trials` of the same search.
    """
    first = chosen[0]
    facts = {
        "Model": first["model"],
        "Data": first["dataset"],
        "Methods": str(len(chosen)),
        "Trials of each method": ", ".join(str(count) for count in sorted({row["num_trials"] for row in chosen})),
        "Seeds": str(max(row["num_seeds"] for row in trials)),
        "Edits": f"{max(row['edit_count'] for row in trials):,}",
    }
    slots = {
        "run": escape(run),
        "model": escape(first["model"]),
        "facts": facts_list(facts),
        "chosen": _chosen_table(chosen),
        "charts": "".join(_chart(row, _of(row, trials), COLORS[i % len(COLORS)]) for i, row in enumerate(chosen)),
        "trials": "".join(f"<h3>{escape(row['label'])}</h3>{_trials_table(_of(row, trials))}" for row in chosen),
        "sql": escape(f"overedit sql \"SELECT * FROM tuned_settings WHERE run = '{run}'\""),
    }
    return fill_page(_PAGE, slots, title=escape(f"Overedit: {run}"), style=joined([WEB / "page.css"]))


def _of(chosen: Row, trials: Sequence[Row]) -> list[Row]:
    return [row for row in trials if (row["trajectory"], row["study"]) == (chosen["trajectory"], chosen["study"])]


def _chosen_table(chosen: Sequence[Row]) -> str:
    headings = (
        "method",
        "trials",
        "pruned",
        "failed",
        "validation",
        "test",
        "gap",
        "given",
        "gain",
        "kept",
        "settings",
    )
    rows = [
        [
            escape(row["label"]),
            *(str(row[name]) for name in ("num_trials", "num_pruned", "num_failed")),
            *(percent(row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in _COMPARED),
            row["kept"],
            _settings(row["settings"]),
        ]
        for row in chosen
    ]
    return table(headings, rows, text_columns=(0, len(headings) - 2, len(headings) - 1))


_COMPARED = ("validation", "test", "gap", "given_test", "gain")


def _trials_table(trials: Sequence[Row]) -> str:
    measures = ("value", "reliability", "generalization", "locality", "capability_kept")
    headings = ("trial", "split", "state", "edits", *measures, "perplexity", "seconds", "settings")
    rows = [
        [
            "given" if row["trial"] is None else str(row["trial"]),
            row["split"],
            escape(row["state"] + (f": {row['error']}" if row["error"] else "")),
            f"{row['edit_count']:,}",
            *(percent(row[name]) for name in measures),
            rounded(row["perplexity_ratio"]) or DASH,
            rounded(row["seconds"]) or DASH,
            _settings(row["settings"]),
        ]
        for row in trials
    ]
    return table(headings, rows, text_columns=(0, 1, 2, len(headings) - 1))


def _settings(text: str) -> str:
    found = json.loads(text)
    return "<br>".join(escape(f"{key}: {value}") for key, value in found.items()) or "as given"


def _chart(chosen: Row, trials: Sequence[Row], color: str) -> str:
    """A method's search as SVG."""
    searched = [row for row in trials if row["split"] == "validation" and row["trial"] is not None]
    last: int = max(1, *(row["trial"] for row in searched))

    def x(trial: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - 12) * trial / last

    def y(value: float) -> float:
        return 10 + (_HEIGHT - _BOTTOM - 10) * (1 - value)

    parts = [_grid(y), *_marks(searched, x, y, color)]
    if chosen["given_test"] is not None:
        height = y(chosen["given_test"])
        parts.append(f'<line class="reference" x1="{_LEFT}" x2="{_WIDTH - 12}" y1="{height:.1f}" y2="{height:.1f}"/>')
    if chosen["test"] is not None:
        at, low, high = x(chosen["trial"]), y(chosen["test_low"]), y(chosen["test_high"])
        parts.append(f'<line class="chosen" x1="{at:.1f}" x2="{at:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        parts.append(
            f'<rect x="{at - 4:.1f}" y="{y(chosen["test"]) - 4:.1f}" width="8" height="8" style="fill:var(--ink)"/>'
        )
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 8}">trial 0</text>')
    parts.append(f'<text x="{_WIDTH - 12}" y="{_HEIGHT - 8}" text-anchor="end">{last}</text>')
    label = escape(f"{chosen['label']}: objective of {len(searched)} trials")
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return f"<figure><figcaption><h3>{escape(chosen['label'])}</h3></figcaption>{svg}</figure>"


def _grid(y: Callable[[float], float]) -> str:
    return "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 12}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{y(share) + 4:.1f}" text-anchor="end">{100 * share:.0f} %</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    )


def _marks(
    searched: Sequence[Row], x: Callable[[int], float], y: Callable[[float], float], color: str
) -> Iterator[str]:
    """The trials, and the best so far as steps."""
    steps: list[str] = []
    before: float | None = None
    for row in searched:
        if row["best"] is not None:
            at = f"{x(row['trial']):.1f}"
            steps += [f"{at},{y(before):.1f}"] if before is not None else []
            steps.append(f"{at},{y(row['best']):.1f}")
            before = row["best"]
    yield f'<polyline points="{" ".join(steps)}" style="fill:none;stroke:{color};stroke-width:2"/>'
    for row in searched:
        place, name = x(row["trial"]), escape(f"trial {row['trial']}: {row['state']}")
        if row["value"] is None:
            height = y(0)
            cross = f"M{place - 4:.1f} {height - 4:.1f}l8 8m0 -8l-8 8"
            yield f'<path d="{cross}" style="stroke:var(--soft);fill:none"><title>{name}</title></path>'
        else:
            name += escape(f", {100 * row['value']:.1f} %")
            yield (
                f'<circle cx="{place:.1f}" cy="{y(row["value"]):.1f}" r="4" style="fill:{color};opacity:.7">'
                f"<title>{name}</title></circle>"
            )
