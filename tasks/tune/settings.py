"""Settings of a method in the words of the search: ranges, distributions, and configurations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel, ValidationError

from overedit.editing.methods.base import MethodConfig, Range
from overedit.tasks.system.untrusted import shown_value

_DIGITS = 4
"""Significant digits of a number that the search chooses."""


def distributions(ranges: Mapping[str, Range]) -> dict[str, BaseDistribution]:
    """Setting -> Optuna's distribution. Choices are JSON texts, since Optuna takes neither lists nor mappings."""
    return {name: _distribution(each) for name, each in ranges.items()}


def _distribution(values: Range) -> BaseDistribution:
    if values.choices is not None:
        return CategoricalDistribution([json.dumps(choice) for choice in values.choices])
    low, high = values.low, values.high
    assert low is not None and high is not None
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=values.log)
    return FloatDistribution(float(low), float(high), log=values.log)


def chosen_settings(parameters: Mapping[str, Any], ranges: Mapping[str, Range]) -> dict[str, Any]:
    """Setting -> value, from the values that Optuna suggests; floats are rounded to four significant digits."""
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        if ranges[name].choices is not None:
            found[name] = json.loads(value)
        else:
            found[name] = float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
    return found


def with_chosen(config: MethodConfig, settings: Mapping[str, Any]) -> MethodConfig:
    """A method's configuration with settings, given by dotted keys, in the place of its own.

    Raises:
        ValueError: The method does not accept the settings; the message has the key, the value and what is accepted.
    """
    content = config.model_dump(exclude_unset=True) | {"method": config.method}
    for key, value in settings.items():
        content = _put(content, key.split("."), value, config)
    try:
        return type(config).model_validate(content)
    except ValidationError as error:
        mistake = error.errors(include_url=False)[0]
        where = ".".join(map(str, mistake["loc"])) or ", ".join(settings)
        given = shown_value(mistake["input"]) if mistake["loc"] else shown_value(dict(settings))
        raise ValueError(f"{where}: {mistake['msg'].removeprefix('Value error, ')} (given: {given})") from error


def _put(content: Mapping[str, Any], path: list[str], value: Any, own: Any) -> dict[str, Any]:
    """Put a value below a path; groups of fields that are not given are those of the configuration."""
    first, rest = path[0], path[1:]
    if not rest:
        return {**content, first: value}
    inner, of = content.get(first), getattr(own, first, None)
    if not isinstance(inner, Mapping):
        inner = of.model_dump() if isinstance(of, BaseModel) else {}
    return {**content, first: _put(inner, rest, value, of)}


def check_ranges(config: MethodConfig, ranges: Mapping[str, Range]) -> Iterator[MethodConfig]:
    """Check that a method has each setting and accepts its smallest and largest value, or each choice.

    Yields:
        The configuration with each of these values, for further checks.

    Raises:
        ValueError: A setting or a value is not accepted; the message has the key, the value and what is accepted.
    """
    where = f"ranges.{config.method}"
    if not ranges:
        raise ValueError(f"{where}: nothing to search among; accepted: setting -> [low, high] or a list of choices")
    for name, values in ranges.items():
        _check_name(config, name, where)
        for value in values.examples:
            try:
                yield with_chosen(config, {name: value})
            except ValueError as error:
                raise ValueError(f"{where}.{name}: {shown_value(value)} is not accepted: {error}") from error


def _check_name(config: MethodConfig, name: str, where: str) -> None:
    here: Any = config
    for step in name.split("."):
        known = sorted(set(type(here).model_fields) - {"method"}) if isinstance(here, BaseModel) else []
        if step not in known:
            raise ValueError(
                f"{where}.{name}: there is no setting {step!r}; accepted here: {', '.join(known) or 'none'}"
            )
        here = getattr(here, step)
