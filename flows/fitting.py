"""Looks for the nearest settings with which a run that does not fit would fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.forecast import Facts, forecasts
from overedit.tasks.planning.forecast import Forecast, Need
from overedit.tasks.planning.table import in_bytes
from overedit.tasks.search.options import SearchOptions

LEAST_TOKENS = 256
"""Fewer tokens of a pass are not proposed."""
_NOTHING = "no smaller setting of it would fit: take a smaller model, or a larger machine"


class Setting(NamedTuple):
    """A value for a key of the configuration."""

    key: str
    """Dotted, as `--set` takes it."""
    value: Any

    @property
    def shown(self) -> str:
        """As the command line takes it."""
        value = f"[{', '.join(map(str, self.value))}]" if isinstance(self.value, tuple) else self.value
        return f"--set '{self.key}={value}'"


Knob = Callable[[BenchmarkConfig], Setting | None]
"""Given a configuration: the next smaller value of one key; None where there is none."""


def check_fits(facts: Facts, config: BenchmarkConfig, cases: Mapping[str, Forecast]) -> None:
    """Refuse a run that cannot fit, with the nearest settings that would.

    Of a search the case with the fewest edits counts: with more it may end early.

    Raises:
        ValueError: It cannot; the message names the resources, what is needed and available, and the settings.
    """
    first = next(iter(cases.values()))
    if first.fits:
        return
    missing = [need for need in first.needs if not need.fits]
    words = "; ".join(
        f"{need.what}: {in_bytes(need.needed)} needed, there is {in_bytes(need.available)}" for need in missing
    )
    settings = nearest_that_fits(facts, config, missing)
    advice = f"it would fit with {' '.join(setting.shown for setting in settings)}" if settings else _NOTHING
    raise ValueError(f"plan: this run does not fit ({words}); {advice}")


def nearest_that_fits(facts: Facts, config: BenchmarkConfig, missing: list[Need]) -> list[Setting]:
    """Settings with which it fits: of one key if possible, else of the first ones together; empty if nothing helps."""
    knobs = [knob for need in missing for knob in _knobs(config, need)]
    for knob in knobs:
        changed, setting = _turned(facts, config, knob)
        if setting is not None and _fits(facts, changed):
            return [setting]
    applied: dict[str, Setting] = {}
    for knob in knobs:
        config, setting = _turned(facts, config, knob)
        if setting is not None:
            applied[setting.key] = setting
        if applied and _fits(facts, config):
            return list(applied.values())
    return []


def _turned(facts: Facts, config: BenchmarkConfig, knob: Knob) -> tuple[BenchmarkConfig, Setting | None]:
    """Make one key smaller until the run fits, or it cannot be smaller."""
    last = None
    while (setting := knob(config)) is not None:
        config, last = with_value(config, setting.key.split("."), setting.value), setting
        if _fits(facts, config):
            break
    return config, last


def _fits(facts: Facts, config: BenchmarkConfig) -> bool:
    return next(iter(forecasts(facts, config).values())).fits


def with_value(record: Any, path: list[str], value: Any) -> Any:
    """A copy of a configuration with one value replaced; it is not validated again."""
    if not path:
        return value
    key, *rest = path
    if isinstance(record, tuple):
        index = int(key)
        return (*record[:index], with_value(record[index], rest, value), *record[index + 1 :])
    assert isinstance(record, BaseModel)
    return record.model_copy(update={key: with_value(getattr(record, key), rest, value)})


def _knobs(config: BenchmarkConfig, need: Need) -> Iterator[Knob]:
    """What can be made smaller, in the order in which it is tried: what leaves the results alone goes first."""
    indices = range(len(config.methods))
    if need.key == "editing":
        yield _at("execution.editors", lambda count: 1 if count > 1 else None)
        for index in indices:
            yield _at(f"methods.{index}.max_tokens_per_pass", _halved)
            yield _at(
                f"methods.{index}.values.max_tokens_per_pass", lambda most: LEAST_TOKENS if most is None else None
            )
            yield _at(f"methods.{index}.prefix_gib", lambda most: 0.0 if most else None)
        yield _at("editing.offload", {"none": "cpu", "cpu": "disk"}.get)
    if need.key == "engine":
        yield _at("execution.engines", lambda count: 1 if count > 1 else None)
        yield _at("engine.batch_tokens", _halved)
        yield _at("engine.kv_cache_gib", lambda most: 0.25 if most is None else most / 2 if most > 0.1 else None)
        yield _at("engine.kind", lambda kind: "transformers" if kind != "transformers" else None)
        yield _at("engine.dtype", lambda dtype: "bfloat16" if dtype in ("auto", "float32") else None)
    if need.key == "disk":
        yield _fewer_counts
        yield _at("order_seeds", lambda seeds: seeds[:1] if len(seeds) > 1 else None)
    yield _at("dtype", lambda dtype: "bfloat16" if dtype in ("auto", "float32") else None)
    for index in indices:
        yield _at(f"methods.{index}.sites", lambda sites: sites[: len(sites) // 2] if len(sites) > 1 else None)
        yield _at(f"methods.{index}.layers", lambda layers: layers[len(layers) // 2 :] if len(layers) > 1 else None)
        if need.key == "editing":
            yield _at(f"methods.{index}.batch_size", lambda size: size // 2 if size and size > 1 else None)


def _at(key: str, smaller: Callable[[Any], Any]) -> Knob:
    """A knob for a key, which a configuration may lack."""

    def knob(config: BenchmarkConfig) -> Setting | None:
        found: Any = config
        for part in key.split("."):
            if isinstance(found, BaseModel) and part not in type(found).model_fields:
                return None
            found = found[int(part)] if isinstance(found, tuple) else getattr(found, part)
        value = smaller(found)
        return None if value is None else Setting(key, value)

    return knob


def _halved(tokens: int | None) -> int | None:
    return tokens // 2 if tokens is not None and tokens >= 2 * LEAST_TOKENS else None


def _fewer_counts(config: BenchmarkConfig) -> Setting | None:
    """Without the smallest interim count; the last one stays."""
    counts = config.edit_counts
    if isinstance(counts, SearchOptions) or len(counts) < 2:
        return None
    return Setting("edit_counts", counts[1:])
