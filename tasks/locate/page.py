"""The page of a search among sites: heat maps, the proposal and the ranking, in one HTML file that loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from overedit.tasks.locate.heat_maps import NAMES, HeatMap, heat_maps
from overedit.tasks.locate.ranking import MEASURES, Ranking, minutes, proposal
from overedit.tasks.report.web_page import WEB, facts_list, fill_page, joined
from overedit.tasks.storage.working_copy import replace_file

Row = dict[str, Any]

_TEMPLATE = Path(__file__).parent / "web" / "sites.html"
_DASH = "–"


def write_sites_page(rankings: Sequence[Ranking], path: Path) -> Path:
    """Write the page of a run.

    Args:
        rankings: One per protocol.
        path: The HTML file; its folder is made if needed.

    Returns:
        `path`.
    """
    with replace_file(path) as stream:
        stream.write(render_sites(rankings).encode())
    return path


def render_sites(rankings: Sequence[Ranking]) -> str:
    """The page as HTML. Its content security policy forbids it to load anything and to run any script."""
    first = rankings[0]
    about = first.validation[0]
    slots = {
        "run": escape(first.run),
        "heading": escape(f"Where should {about['label']} edit {about['model']}?"),
        "facts": _facts(first),
        "verdict": escape(_sentence(proposal(first))),
        "protocols": "\n".join(_protocol(ranking) for ranking in rankings),
        "sql": escape(
            f"overedit sql \"SELECT * FROM site_ranking WHERE run = '{first.run}'\"\n"
            f"overedit sql \"SELECT * FROM site_measures WHERE run = '{first.run}'\""
        ),
    }
    style = joined([WEB / "page.css", _TEMPLATE.with_suffix(".css")])
    return fill_page(joined([_TEMPLATE]), slots, title=escape(f"Overedit: {first.run}"), style=style)


def _facts(ranking: Ranking) -> str:
    about = ranking.validation[0]
    facts = {
        "Method": about["label"],
        "Model": about["model"],
        "Data": about["dataset"],
        "Sites": f"{len(ranking.validation):,}",
        "Validation edits": f"{about['edit_count']:,}",
        "Test edits": f"{ranking.test[0]['edit_count']:,} at {len(ranking.test):,} sites" if ranking.test else "none",
        "Seeds": f"{about['num_seeds']:,}",
        "Minutes": f"{minutes([*ranking.validation, *ranking.test]):.1f}",
    }
    return facts_list(facts)


def _protocol(ranking: Ranking) -> str:
    name = ranking.protocol.replace("_", "-").capitalize()
    maps = "".join(_heat_map(heat) for heat in heat_maps(ranking.validation))
    parts = [
        f"<section><h2>{escape(name)} protocol, validation edits</h2>",
        f'<div class="maps">{maps}</div>',
        _table(ranking.validation),
        "</section>",
    ]
    if ranking.test:
        parts.append(f"<section><h2>{escape(name)} protocol, test edits</h2>{_table(ranking.test)}</section>")
    return "\n".join(parts)


def _heat_map(heat: HeatMap) -> str:
    head = "".join(f"<th scope=col>{escape(part)}</th>" for part in heat.parts)
    rows = "".join(
        f"<tr><th scope=row>{layer}</th>{''.join(_cell(heat, value) for value in values)}</tr>"
        for layer, values in zip(heat.layers, heat.values, strict=True)
    )
    return (
        f"<figure><figcaption><h3>{escape(heat.title)}</h3>percent; colors from {100 * heat.low:.0f} to "
        f'{100 * heat.high:.0f}</figcaption><div class="scroll" tabindex="0"><table class="heat"><thead><tr>'
        f"<th scope=col>layer</th>{head}</tr></thead><tbody>{rows}</tbody></table></div></figure>"
    )


def _cell(heat: HeatMap, value: float | None) -> str:
    if value is None:
        return f"<td>{_DASH}</td>"
    color, ink = heat.colors(value)
    return f'<td style="background:{color};color:{ink}">{100 * value:.0f}</td>'


def _table(rows: Sequence[Row]) -> str:
    measures = [name for name in MEASURES if any(row[name] is not None for row in rows)]
    heads = ["Site", "Score", "Behind the best", *(f"{NAMES[name]} %" for name in measures), "Perplexity ×", "Seconds"]
    head = "".join(
        f"<th scope=col{' class=text' if index == 0 else ''}>{escape(name)}</th>" for index, name in enumerate(heads)
    )
    body = "".join(f"<tr>{_cells(row, measures)}</tr>\n" for row in rows)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cells(row: Row, measures: Sequence[str]) -> str:
    site = f"<td class=text>{escape(row['site'])}</td>"
    if row["score"] is None:
        reason = escape(row["reason"] or "no answer could be scored")
        return f"{site}<td class=text colspan={len(measures) + 4}>{reason}</td>"
    score = f"{row['score']:.3f}<small>{row['low']:.3f} to {row['high']:.3f}</small>"
    best = row["rank"] == 1
    behind = (
        _DASH if best else f"{row['behind']:+.3f}<small>{row['behind_low']:+.3f} to {row['behind_high']:+.3f}</small>"
    )
    shares = [_DASH if row[name] is None else f"{100 * row[name]:.1f}" for name in measures]
    numbers = [_rounded(row["perplexity_ratio"], 4), _rounded(row["seconds"], 3)]
    return site + "".join(f"<td>{cell}</td>" for cell in (score, behind, *shares, *numbers))


def _rounded(value: float | None, digits: int) -> str:
    return _DASH if value is None else f"{value:.{digits}g}"


def _sentence(text: str) -> str:
    return f"Overedit {text}."
