"""The report: one self-contained HTML page for a run, and its table for terminals and the flow's artifacts."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path

from rich.table import Table
from rich.text import Text

from tasks import report_sections as sections
from tasks.atomic_files import replace_file
from tasks.figures import curve_data_uri, curve_svg, save_curve_png
from tasks.report_charts import chart_data
from tasks.report_data import Line, RunData, collect
from tasks.report_gaps import gaps
from tasks.result_text import rounded
from tasks.warehouse import Warehouse

__all__ = ["curve_data_uri", "curve_svg", "save_curve_png", "summary_markdown", "summary_table", "write_report"]

_FOLDER = Path(__file__).parent
_COLUMNS = ("method", "edits", "rel. %", "gen. %", "loc. %", "port. %", "cap. %", "ppl. ×", "s/edit", "collapse")


def write_report(warehouse: Warehouse, run: str, path: Path) -> Path:
    """Write a run's page; it loads nothing, so it can be opened, mailed and archived as it is.

    Args:
        warehouse: Where the run's rows are.
        run: The run's name.
        path: The HTML file; folders are made as needed.

    Returns:
        `path`.

    Raises:
        ValueError: The run is not in the warehouse.
    """
    page = render_report(collect(warehouse, run))
    with replace_file(path) as stream:
        stream.write(page.encode())
    return path


def render_report(data: RunData) -> str:
    """The page as text."""
    about = data.views["leaderboard"][0]
    slots = {
        "title": escape(f"Overedit: {data.run}"),
        "run": escape(data.run),
        "model": escape(about["model"]),
        "facts": _facts(data),
        "verdicts": sections.verdicts(data),
        "leaderboards": sections.leaderboards(data),
        "all_points": sections.all_points(data),
        "capability": sections.capability(data),
        "costs": sections.costs(data),
        "samples": sections.samples(data),
        "missing": "\n".join(f"<li>{escape(gap)}</li>" for gap in gaps(data)),
        "sql": sections.sql(data.run),
        "configuration": sections.configuration(data),
        "data": json.dumps(chart_data(data), allow_nan=False).replace("<", "\\u003c"),
        "style": (_FOLDER / "report_page.css").read_text(encoding="utf-8"),
        "script": (_FOLDER / "report_page.js").read_text(encoding="utf-8"),
    }
    template = (_FOLDER / "report_page.html").read_text(encoding="utf-8")
    # in one pass: what fills a slot is never searched for slots
    return re.sub(r"\{\{(\w+)\}\}", lambda slot: slots[slot[1]], template)


def summary_table(warehouse: Warehouse, run: str) -> Table:
    """The paper's table for a terminal of 80 columns: each method at its last edit count, generated protocol.

    Raises:
        ValueError: The run is not in the warehouse.
    """
    data = collect(warehouse, run)
    about = data.views["leaderboard"][0]
    table = Table(
        title=Text(f"{run}: {about['model']} on {about['dataset']}, generated protocol"),
        caption="reliability, generalization, locality, portability, capability; perplexity over the pristine model's",
        padding=(0, 0),
        pad_edge=False,
    )
    for index, name in enumerate(_COLUMNS):
        is_text = index in (0, len(_COLUMNS) - 1)
        table.add_column(name, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    for cells in _summary(data):
        table.add_row(*map(Text, cells))
    return table


def summary_markdown(warehouse: Warehouse, run: str) -> str:
    """The same table as Markdown, a sentence a method below it.

    Raises:
        ValueError: The run is not in the warehouse.
    """
    data = collect(warehouse, run)
    rows = [_COLUMNS, ["---"] + ["---:"] * (len(_COLUMNS) - 2) + ["---"], *_summary(data)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    said = [f"- **{line.name}** {' '.join(sections.verdict(data, line))}" for line in data.lines]
    return "\n".join([*lines, "", *said, ""])


def _summary(data: RunData) -> list[list[str]]:
    return [_summary_row(data, line) for line in data.lines]


def _summary_row(data: RunData, line: Line) -> list[str]:
    row = data.one(line, "leaderboard")
    assert row is not None
    shares = [row[name] for name in ("reliability", "generalization", "locality", "portability", "capability")]
    if row["collapse_at"] is not None:
        collapse = f"at {row['collapse_at']:,}: {row['collapse_reason']}"
    else:
        collapse = "failed" if row["status"] == "failed" else "none"
    return [
        line.name,
        rounded(row["edit_count"]) or "-",
        *("-" if share is None else f"{100 * share:.1f}" for share in shares),
        "-" if row["perplexity_ratio"] is None else f"{row['perplexity_ratio']:.3g}",
        "-" if row["seconds_per_edit"] is None else f"{row['seconds_per_edit']:.2g}",
        collapse,
    ]


def _facts(data: RunData) -> str:
    about, runs = data.views["leaderboard"][0], data.runs
    facts = {"Model": about["model"], "Data": about["dataset"]}
    if runs:
        versions = json.loads(runs[0]["versions"] or "{}")
        engine = runs[0]["engine"]
        release = versions.get(engine) or versions.get(f"{engine}-cpu")
        facts |= {
            "Engine": f"{engine} {release}" if release else engine,
            "Hardware": runs[0]["hardware"],
            "Weights": (runs[0]["model_digest"] or "")[:12],
            "Begun": rounded(runs[0]["started_at"])[:16],
        }
    facts["Edit counts"] = ", ".join(f"{count:,}" for count in data.edit_counts)
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(fact))}</dd></div>" for name, fact in facts.items() if fact
    )
