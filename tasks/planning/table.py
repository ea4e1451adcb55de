"""A forecast as text: tables of at most 80 columns, or JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from overedit.tasks.planning.forecast import Forecast, MethodForecast

FORMATS = ("table", "json")
_WIDTH = 80


def forecast_text(cases: Mapping[str, Forecast], format: str = "table") -> str:
    """Format the cases of a forecast: one for a list of edit counts; two, fewest and most, for a search.

    Raises:
        ValueError: An unknown format.
    """
    check_format(format)
    if format == "json":
        return json.dumps([{"case": name} | as_json(case) for name, case in cases.items()], indent=1)
    return "\n\n".join(_as_table(name, case) for name, case in cases.items())


def check_format(format: str) -> None:
    """Refuse an unknown format.

    Raises:
        ValueError: It is none of `FORMATS`.
    """
    if format not in FORMATS:
        raise ValueError(f"format: {format!r} is unknown; choose one of {', '.join(FORMATS)}")


def as_json(forecast: Forecast) -> dict[str, Any]:
    """A forecast as JSON-able values: bytes, seconds and operations as numbers."""
    return {
        "edit_counts": list(forecast.edit_counts),
        "orders": forecast.num_orders,
        "seconds": round(forecast.seconds, 3),
        "fits": forecast.fits,
        "methods": [method._asdict() | {"memory": method.memory._asdict()} for method in forecast.methods],
        "stages": [stage._asdict() for stage in forecast.stages],
        "needs": [need._asdict() | {"fits": need.fits} for need in forecast.needs],
        "assumptions": list(forecast.notes),
    }


def _as_table(name: str, forecast: Forecast) -> str:
    counts = ", ".join(f"{count:,}" for count in forecast.edit_counts)
    orders = "" if forecast.num_orders == 1 else f", {forecast.num_orders} orders of the requests"
    parts = [
        textwrap.fill(f"{name}: {counts} edits{orders}", _WIDTH),
        _methods_table(forecast.methods),
        _columns(
            ("stage", "items", "time", "from"),
            [(s.stage, f"{s.items:,.0f}", in_time(s.seconds), s.source) for s in forecast.stages],
        ),
        _columns(
            ("", "needed", "there is", ""),
            [
                (n.what, in_bytes(n.needed), in_bytes(n.available), "" if n.fits else "NOT ENOUGH")
                for n in forecast.needs
            ],
        ),
        f"expected time, at most: {in_time(forecast.seconds)}",
        "\n".join(textwrap.fill(f"- {note}", _WIDTH, subsequent_indent="  ") for note in forecast.notes),
    ]
    return "\n\n".join(parts)


def _methods_table(methods: Sequence[MethodForecast]) -> str:
    """Rows of methods; `~` marks a time that was not measured."""
    has_gpu = any(method.memory.gpu for method in methods)
    cells: list[tuple[str, Callable[[MethodForecast], str]]] = [
        ("editing", lambda m: textwrap.shorten(m.label, 20, placeholder="...")),
        ("edits", lambda m: f"{m.edits:,}" if m.edits < 1e5 else f"{m.edits:.1e}"),
        ("FLOP", lambda m: f"{m.operations:.1e}"),
        ("memory", lambda m: in_bytes(m.memory.host)),
        *([("GPU", lambda m: in_bytes(m.memory.gpu))] if has_gpu else []),
        ("disk", lambda m: in_bytes(m.disk)),
        ("time", lambda m: ("" if m.source == "measured" else "~") + in_time(m.seconds)),
    ]
    titles = [title for title, _ in cells]
    return _columns([*titles, ""], [[*(show(method) for _, show in cells), ""] for method in methods])


def _columns(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart: the first and the last aligned left, the others right."""
    lines = [titles, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(titles))]
    last = len(titles) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def in_bytes(number: float) -> str:
    """Bytes for people, with three digits: 1.23 GiB."""
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if number >= size:
            return f"{number / size:.3g} {unit}" if number < 1000 * size else f"{number / size:,.0f} {unit}"
    return f"{number / 1024:.3g} KiB"


def in_time(seconds: float) -> str:
    """A duration for people: 8 s, 12 min, 3.4 h, 5.1 d."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
