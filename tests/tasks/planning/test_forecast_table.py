"""A forecast as text, and what of it does not fit."""

from __future__ import annotations

import json
import re

import pytest

from overedit.tasks.planning.forecast import Forecast, MethodForecast, StageForecast, needs_of
from overedit.tasks.planning.machine import Machine
from overedit.tasks.planning.table import forecast_text, in_bytes, in_time
from overedit.tasks.planning.trajectories import Memory

GIB = 2**30


def forecast(machine: Machine, *, at_once: int = 1) -> Forecast:
    memory = Memory(host=10 * GIB, mapped=15 * GIB, gpu=0.0 if not machine.gpu else 20 * GIB)
    methods = (
        MethodForecast("A method with quite a long name (epochs=3)", 1100, 4.6e14, memory, GIB, 90.0, "measured"),
    )
    needs = needs_of(
        machine,
        [memory],
        Memory(host=4 * GIB),
        least_gpu=8 * GIB,
        at_once=at_once,
        engines=1,
        other_processes=GIB,
        disk=2 * GIB,
    )
    return Forecast((10, 100), 2, methods, (StageForecast("generate", 10, 30.0, "assumed"),), needs, ("a note " * 30,))


def test_needs_are_added_up_over_processes() -> None:
    """Mapped files do not count; the engine does on a CPU."""
    host, disk = forecast(Machine(32 * GIB, 10 * GIB)).needs
    assert (host.needed, host.fits, host.key) == (15 * GIB, True, "editing")
    assert disk.needed == pytest.approx(2 * GIB, rel=0.05)
    assert not forecast(Machine(32 * GIB, 10 * GIB), at_once=3).fits
    assert not forecast(Machine(32 * GIB, 2 * GIB)).fits
    assert not forecast(Machine(32 * GIB, 10 * GIB, gpu=16 * GIB)).fits
    assert forecast(Machine(32 * GIB, 10 * GIB, gpu=24 * GIB)).fits


@pytest.mark.parametrize("gpu", [0, 24 * GIB])
def test_a_table_fits_80_columns(gpu: int) -> None:
    text = forecast_text({"as configured": forecast(Machine(12 * GIB, 10 * GIB, gpu=gpu))})
    assert max(map(len, text.splitlines())) <= 80
    assert "as configured: 10, 100 edits, 2 orders of the requests" in text
    assert re.search(r"host memory +15 GiB +12 GiB +NOT ENOUGH", text)
    assert "expected time, at most: 3.5 min" in text


def test_json_has_the_numbers() -> None:
    (case,) = json.loads(forecast_text({"as configured": forecast(Machine(12 * GIB, 10 * GIB))}, "json"))
    assert (case["case"], case["seconds"], case["fits"], case["edit_counts"]) == (
        "as configured",
        210,
        False,
        [10, 100],
    )
    assert case["methods"][0]["memory"]["mapped"] == 15 * GIB
    assert [need["what"] for need in case["needs"] if not need["fits"]] == ["host memory"]


def test_an_unknown_format() -> None:
    with pytest.raises(ValueError, match="format: 'yaml' is unknown; choose one of table, json"):
        forecast_text({}, "yaml")


@pytest.mark.parametrize(
    ("number", "shown"), [(512, "0.5 KiB"), (2**20, "1 MiB"), (1.234 * GIB, "1.23 GiB"), (1005 * GIB, "1,005 GiB")]
)
def test_bytes(number: float, shown: str) -> None:
    assert in_bytes(number) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.5, "0.5 s"), (80, "80 s"), (600, "10 min"), (9000, "2.5 h"), (2e5, "2.31 d")]
)
def test_times(seconds: float, shown: str) -> None:
    assert in_time(seconds) == shown
