"""Error messages for a configuration that is not valid: key, what is wrong, the value given, what is accepted."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from overedit.tasks.system.untrusted import printable, shown_value, without_credentials

_MOST_MISTAKES = 20  # that one message lists
_ALTERNATIVE = re.compile(r"\w+\[.*\]|(constrained-)?(int|float|str|bool)")
_SHOWN = 80  # characters of a value, in a message
_KINDS = {
    "model_type": "a mapping of keys to values is expected",
    "model_attributes_type": "a mapping of keys to values is expected",
    "dict_type": "a mapping of keys to values is expected",
    "tuple_type": "a list is expected",
}


def explain(error: ValidationError, model: Any) -> str:
    """A line for each error: key, what is wrong, the value given, what is accepted; at most 20 lines."""
    mistakes = _own(error.errors(include_url=False))
    lines = [f"  {_line(dict(mistake), model)}" for mistake in mistakes[:_MOST_MISTAKES]]
    more = len(mistakes) - len(lines)
    return "\n".join([*lines, *([f"  and {more:,} more"] if more else [])])


def _own(mistakes: Sequence[Any]) -> list[Any]:
    """The mistakes but those that follow from others: a list is too short, or no word, as its items are wrong."""
    placed = [{**mistake, "loc": _keys(mistake["loc"])} for mistake in mistakes]
    places = [mistake["loc"] for mistake in placed]
    return [
        mistake
        for mistake in placed
        if mistake["type"] not in ("too_short", "literal_error")
        or not any(p[: len(mistake["loc"])] == mistake["loc"] != p for p in places)
    ]


def _keys(place: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """A place without the alternatives of a type that pydantic names there (`literal['all']`, `constrained-int`)."""
    return tuple(part for part in place if isinstance(part, int) or not _ALTERNATIVE.fullmatch(part))


def _line(mistake: dict[str, Any], model: Any) -> str:
    path = tuple(str(part) for part in mistake["loc"])
    key, kinds = _key_and_kinds(model, path)
    given = _without_credentials(mistake.get("input"))
    if mistake["type"] == "extra_forbidden":
        accepted = _fields(model, path[:-1])
        near = difflib.get_close_matches(path[-1][:_SHOWN], accepted, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        hint = "YAML needs a space after the colon; " if ":" in path[-1] else hint
        return f"{key}: there is no such key; {hint}accepted here: {', '.join(accepted)}"
    if mistake["type"] == "union_tag_invalid":
        context = mistake["ctx"]
        tag = context["discriminator"].strip("'")
        return f"{key}.{tag}: unknown {shown_value(context['tag'])}; accepted: {context['expected_tags']}"
    if mistake["type"] == "union_tag_not_found":
        tag = mistake["ctx"]["discriminator"].strip("'")
        return f"{key}.{tag}: is needed and not given; accepted: {', '.join(kinds)}"
    if mistake["type"] == "missing":
        return f"{key}: is needed and not given"
    what = _KINDS.get(mistake["type"]) or shortened(mistake["msg"].removeprefix("Value error, "), 400)
    if not path:  # of keys that do not go together: the message names them, and all that is given would hide it
        return what
    return f"{key}: {what} (given: {shown_value(given, _SHOWN)})"


def _without_credentials(given: Any) -> Any:
    return without_credentials(given) if isinstance(given, str) else given


def shortened(text: str, length: int = _SHOWN) -> str:
    """A text cut to a number of characters, with its control characters escaped."""
    return printable(text if len(text) <= length else f"{text[: length - 3]}...")


def _fields(model: Any, path: tuple[str, ...]) -> list[str]:
    """The names accepted at a place of a model, read from its JSON schema."""
    schema = TypeAdapter(model).json_schema()
    definitions = schema.get("$defs", {})
    here = schema
    for part in path:
        here = _step(here, part, definitions)
    return sorted(_resolved(here, definitions).get("properties", {}))


def _key_and_kinds(model: Any, path: tuple[str, ...]) -> tuple[str, list[str]]:
    """The key as users write it (`execution.editors`, not `execution.ray.editors`), and the kinds that it accepts."""
    schema = TypeAdapter(model).json_schema()
    here, shown = schema, []
    for part in path:
        shown += [] if part in _kinds(here, schema.get("$defs", {})) else [shortened(part)]
        here = _step(here, part, schema.get("$defs", {}))
    return ".".join(shown), sorted(_kinds(here, schema.get("$defs", {})))


def _kinds(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, str]:
    """Kind -> reference to its schema, of a key that holds one of several kinds of sections; else empty."""
    return dict(_resolved(schema, definitions).get("discriminator", {}).get("mapping", {}))


def _step(schema: dict[str, Any], part: str, definitions: dict[str, Any]) -> dict[str, Any]:
    kinds = _kinds(schema, definitions)
    if part in kinds:
        return {"$ref": kinds[part]}
    schema = _resolved(schema, definitions)
    if part.isdigit():
        found: Any = schema.get("items") or next(iter(schema.get("prefixItems", [])), {})
    else:
        found = schema.get("properties", {}).get(part, {})
    return dict(found)


def _resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    for option in (schema, *schema.get("anyOf", []), *schema.get("allOf", [])):
        if "$ref" in option:
            return dict(definitions[option["$ref"].rsplit("/", 1)[-1]])
    return schema
