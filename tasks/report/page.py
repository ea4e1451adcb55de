"""The report of a run: one HTML page that contains its styles, scripts and data."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from overedit.tasks.report import analysis_tables, findings, main_tables, search_tables
from overedit.tasks.report.charts import chart_data
from overedit.tasks.report.data import RunData
from overedit.tasks.report.formatting import rounded
from overedit.tasks.report.not_measured import gaps
from overedit.tasks.report.web_page import as_data, facts_list, fill_page, joined
from overedit.tasks.storage.working_copy import replace_file

_FOLDER = Path(__file__).parent / "web"
_SCRIPTS = ("scales.js", "controls.js", "curves.js", "maps.js", "cases.js", "page.js")
"""Joined in this order into one script; the last file calls what the others define."""


_STAGES_NOTE = "Seconds of each stage over the whole trajectory; without the measuring of the pristine model."
_HALF_LIFE_NOTE = (
    "The number of further edits after which reliability is half that of the newest edits, at the last edit count."
)
_DEFINITIONS_NOTE = (
    "A verdict that depends on one definition is weak. Practical: capability's upper bound, less chance, is below 80 % "
    "of the pristine model's. Significant: from here on benchmark items are answered worse than before, by a paired "
    "test. Perplexity: above 1,000 or ten times the pristine model's. Muted: no better than chance, or half of the "
    "outputs empty. Forgotten: reliability's upper bound is below half of its best."
)
_SEARCH_NOTE = (
    "Takes: the edits that the model takes. Last good and collapse at: the bracket that holds the collapse point with "
    "the stated confidence, if ability only falls with edits. Undecided: counts whose interval holds the limit."
)
_ORDERS_NOTE = "The edits that the model takes, over random orders; the mean is geometric, with Student's interval."
_CHANGE_NOTE = (
    "Difference with its paired 95 % interval; lost and gained are items that were right before and are wrong now, and "
    "the other way round. p is that of McNemar's exact test, adjusted by Holm's method."
)
_WARNINGS_NOTE = (
    "When each sign passed its limit, compared with the practical collapse. Early, same count, late: before, with or "
    "after it. Missed: a collapse without a warning. False alarm: a warning without a collapse. Quiet: neither."
)
_CORRELATION_NOTE = "Over checkpoints: rank correlation with the share of capability that is left; the strongest first."
_GATING_NOTE = (
    "The benchmark runs saved by skipping them until perplexity changes by this ratio, and how often capability had "
    "changed already; about one in twenty does by chance."
)
_DURABILITY_NOTE = (
    "One more step after the edits, and everything asked again. Below each number: the 95 % interval of the change by "
    "the step, paired on the same items; of shares in points. quantize: the linear layers rounded to integers; "
    "merge_base: a share of the edit is kept; finetune: steps of training on plain text."
)


def write_page(data: RunData, path: Path, *, tag: str = "") -> Path:
    """Write the page of a run. It loads nothing, so it can be opened, mailed and archived as a single file.

    Args:
        data: The run's rows.
        path: The HTML file; its folder is made if needed.
        tag: The tag of `report_tag`, for a page that is written together with its pictures.

    Returns:
        `path`.
    """
    page = render_report(data, tag=tag)
    with replace_file(path) as stream:
        stream.write(page.encode())
    return path


def render_report(data: RunData, *, tag: str = "") -> str:
    """The page as HTML. Its content security policy forbids it to load anything or to run any script but its own."""
    about = data.views["leaderboard"][0]
    script = joined(_FOLDER / name for name in _SCRIPTS)
    slots = {
        "run": escape(data.run),
        "model": escape(about["model"]),
        "facts": _facts(data),
        "verdicts": main_tables.verdicts(data),
        "warnings": findings.warning_list(data),
        "leaderboards": main_tables.leaderboards(data),
        "all_points": main_tables.all_points(data),
        "capability": main_tables.capability(data),
        "costs": main_tables.costs(data),
        "samples": main_tables.samples(data),
        "retention_tables": analysis_tables.retention_tables(data),
        "correlation_sentence": escape(analysis_tables.correlation_sentence(data)),
        "stages": _section("Measuring as well", analysis_tables.stages(data), _STAGES_NOTE),
        "half_life": _section("Half-life of an edit", analysis_tables.half_life(data), _HALF_LIFE_NOTE),
        "search": _section("The search for the collapse", search_tables.brackets(data), _SEARCH_NOTE)
        + _section("Over the orders of the edits", search_tables.over_orders(data), _ORDERS_NOTE),
        "definitions": _section(
            "Collapse by other definitions", analysis_tables.collapse_definitions(data), _DEFINITIONS_NOTE
        ),
        "change": _section(
            "Against the pristine model, on the same items", analysis_tables.capability_change(data), _CHANGE_NOTE
        ),
        "early": _section("Which sign warned first", analysis_tables.warnings(data), _WARNINGS_NOTE),
        "correlation": _section(
            "How closely each sign goes with capability", analysis_tables.correlation(data), _CORRELATION_NOTE
        ),
        "gating": _section("Benchmarks only where perplexity has moved", analysis_tables.gating(data), _GATING_NOTE),
        "durability": _section("Do the edits last?", findings.durability(data), _DURABILITY_NOTE),
        "missing": "\n".join(f"<li>{escape(gap)}</li>" for gap in gaps(data)),
        "sql": main_tables.sql(data.run),
        "configuration": main_tables.configuration(data),
        "data": as_data(chart_data(data)),
    }
    return fill_page(
        joined([_FOLDER / "page.html"]),
        slots,
        title=escape(f"Overedit: {data.run}"),
        style=joined([_FOLDER / "page.css"]),
        script=script,
        mark=tag,
    )


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
    return facts_list(facts)


def _section(title: str, content: str, note: str) -> str:
    """A section with heading and note; empty without content."""
    return f'<h3>{escape(title)}</h3>{content}<p class="note">{escape(note)}</p>' if content else ""
