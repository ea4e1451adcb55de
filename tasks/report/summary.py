"""The summary of a run: the paper's table for a terminal, and Markdown for files and the flow's artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from rich.console import Group
from rich.table import Table
from rich.text import Text

from overedit.tasks.report.data import Row, RunData, Trajectory, collect
from overedit.tasks.report.findings import durability_markdown, warning_lines
from overedit.tasks.report.formatting import markdown_table, rounded, shown_bracket
from overedit.tasks.report.html import protocol_name
from overedit.tasks.report.main_tables import verdict
from overedit.tasks.report.not_measured import gaps
from overedit.tasks.storage.working_copy import replace_file
from overedit.tasks.system.untrusted import printable
from overedit.tasks.warehouse.warehouse import Warehouse

_COLUMNS = ("method", "edits", "rel. %", "gen. %", "loc. %", "port. %", "cap. %", "ppl. ×", "s/edit", "collapse")


def summary_table(warehouse: Warehouse, run: str) -> Group:
    """The paper's table for a terminal of 80 columns: each trajectory at its last edit count, generated protocol.

    Below it are the run's warnings.

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
    return Group(table, *(Text(printable(f"warning: {line}")) for line in warning_lines(data)))


def summary_markdown(data: RunData, pictures: Mapping[str, str] | None = None) -> str:
    """The summary as Markdown: a sentence per trajectory, pictures, the table of each protocol and preset, and gaps.

    Args:
        data: The run's rows.
        pictures: Title -> path of the picture relative to the Markdown file; None for no pictures.
    """
    about = data.views["leaderboard"][0]
    parts = [f"# Overedit: {data.run}", f"{about['model']} on {about['dataset']}, each method at its last edit count."]
    parts.append(
        "\n".join(f"- **{trajectory.name}** {' '.join(verdict(data, trajectory))}" for trajectory in data.trajectories)
    )
    if lines := warning_lines(data):
        parts += ["## Warnings", "\n".join(f"- {line}" for line in lines)]
    parts += [f"![{title}]({quote(link)})" for title, link in (pictures or {}).items()]
    for protocol in data.protocols or ("generated",):
        parts += [
            f"## {protocol_name(protocol)}",
            markdown_table(_COLUMNS, _summary(data, protocol), text_columns=(0, len(_COLUMNS) - 1)),
        ]
    parts.append(
        "In percent: reliability, generalization, locality, portability, capability. Perplexity is a multiple of the "
        "pristine model's."
    )
    if durability := durability_markdown(data):
        parts += ["## Do the edits last?", durability, "In brackets: the 95 % interval of the change by the step."]
    for preset in data.presets:
        parts += [f"## As in {preset}", markdown_table(*_preset(data, preset))]
    parts += ["## What was not measured", "\n".join(f"- {gap}" for gap in gaps(data))]
    return "\n\n".join(parts) + "\n"


def write_markdown(data: RunData, path: Path, pictures: Mapping[str, Path]) -> Path:
    """Write the summary as a Markdown file that links to pictures in the same folder."""
    names = {name.replace("-", " ").capitalize(): picture.name for name, picture in pictures.items()}
    with replace_file(path) as stream:
        stream.write(summary_markdown(data, names).encode())
    return path


def _preset(data: RunData, preset: str) -> tuple[list[str], list[list[str]]]:
    measures = list(dict.fromkeys(row["measure"] for row in data.views["preset_scores"] if row["preset"] == preset))
    rows = []
    for trajectory in data.trajectories:
        found = {row["measure"]: row for row in data.at_end(trajectory, "preset_scores", preset=preset)}
        last = max((row["edit_count"] for row in found.values()), default=0)
        rows.append([trajectory.name, f"{last:,}", *(_score(found.get(measure)) for measure in measures)])
    return ["method", "edits", *(measure.replace("_", " ") for measure in measures)], rows


def _score(row: Row | None) -> str:
    if row is None or row["value"] is None:
        return "-"
    return f"{100 * row['value']:.1f} %" if row["unit"] == "share" else rounded(row["value"])


def _summary(data: RunData, protocol: str = "generated") -> list[list[str]]:
    return [_summary_row(data, trajectory, protocol) for trajectory in data.trajectories]


def _summary_row(data: RunData, trajectory: Trajectory, protocol: str) -> list[str]:
    row = data.one(trajectory, "leaderboard")
    assert row is not None
    at = {"protocol": protocol, "edit_count": row["edit_count"]}
    found = {score["measure"]: score["value"] for score in data.of(trajectory, "reliability_by_edit_count", **at)}
    shares = [found.get(name) for name in ("reliability", "generalization", "locality", "portability")]
    shares.append(row["capability"])
    if row["collapse_confidence"] is not None:
        collapse = shown_bracket(row)
    elif row["collapse_at"] is not None:
        collapse = f"at {row['collapse_at']:,}: {row['collapse_reason']}"
    else:
        collapse = "failed" if row["status"] == "failed" else "none"
    return [
        trajectory.name,
        rounded(row["edit_count"]) or "-",
        *("-" if share is None else f"{100 * share:.1f}" for share in shares),
        "-" if row["perplexity_ratio"] is None else f"{row['perplexity_ratio']:.3g}",
        "-" if row["seconds_per_edit"] is None else f"{row['seconds_per_edit']:.2g}",
        collapse,
    ]
