"""Reads a configuration from a YAML file and `--set key=value`; errors say what is accepted."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from overedit.flows.config.validation_errors import explain, shortened
from overedit.tasks.system.untrusted import printable, read_plain_file, shown_value

Model = TypeVar("Model", bound=BaseModel)

MOST_BYTES = 1 << 20  # a configuration is a short file
DEEPEST = 20  # levels of lists and mappings
_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, which refuses duplicate keys, deep nesting, and aliases (they can exhaust the memory)."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"aliases are not accepted{self._mark()}")
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"at most {DEEPEST} levels are accepted{self._mark()}")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _mark(self) -> Any:
        return self.peek_event().start_mark  # type: ignore[no-untyped-call]

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.YAMLError(f"the key {shown_value(key)} occurs twice{key_node.start_mark}")
            seen |= {key} if isinstance(key, Hashable) else set()
        return super().construct_mapping(node, deep)


def _construct_integer(loader: _UniqueKeyLoader, node: yaml.ScalarNode) -> int:
    number: int = loader.construct_yaml_int(node)
    if number.bit_length() > 64:
        raise ValueError(f"a number of {number.bit_length():,} bits, at most 64 are accepted")
    return number


_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:int", _construct_integer)


def _parsed(text: str) -> Any:
    """A YAML document's content.

    Raises:
        ValueError: It is not one, with the reason.
    """
    try:
        return _UniqueKeyLoader(text).get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(printable(str(error))) from error
    except (ValueError, ArithmeticError, LookupError, AttributeError) as error:  # e.g. 2001-99-99, `!!timestamp x`
        raise ValueError(f"a value that cannot be ({str(error).partition(';')[0]})") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A configuration file's content.

    Raises:
        ValueError: It is missing, not an ordinary short file, not YAML, or not a mapping.
    """
    content = read_plain_file(path, what="the configuration file", most_bytes=MOST_BYTES)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not YAML: byte {error.start + 1} is not UTF-8 text") from error
    try:
        found = _parsed(text)
    except ValueError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no configuration: a mapping of keys to values is needed")
    return found


def named_content(config: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The keys of a configuration, and its name in error messages.

    Args:
        config: A YAML file, the name of a configuration that comes with Overedit (`demo`), or the keys themselves.

    Raises:
        ValueError: There is no such file or name; or as `read_yaml`.
    """
    if isinstance(config, Mapping):
        return dict(config), "config"
    folder = files("overedit.benchmarks").iterdir()
    shipped = {Path(each.name).stem: Path(str(each)) for each in folder if each.name.endswith(".yaml")}
    name = str(config)
    if name in shipped:
        return read_yaml(shipped[name]), name
    if re.fullmatch(r"[\w-]{1,100}", name) and not Path(name).exists():
        raise ValueError(f"there is no configuration {name}; accepted: a YAML file, or {', '.join(sorted(shipped))}")
    return read_yaml(Path(name)), name


def with_values(content: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with values put in; keys are dotted paths.

    Raises:
        ValueError: A key is below a value that has no keys.
    """
    for key, value in values.items():
        content = _put(content, key.split("."), value, shortened(key))
    return content


def with_settings(content: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """A configuration with `key=value` settings put in; keys are dotted paths, values are YAML.

    Example: `with_settings(c, ["dataset.limit=500", "methods.0.epochs=10"])`.

    Raises:
        ValueError: A setting is not `key=value`, or its key is below a value that has no keys.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        shown = shortened(setting)
        path = key.split(".")
        if not equals or not key:
            raise ValueError(f"--set {shown}: give key=value, e.g. --set dataset.limit=500")
        if len(path) > DEEPEST:
            raise ValueError(f"--set {shown}: the key has {len(path)} parts; at most {DEEPEST} are accepted")
        try:
            value = _parsed(text)
        except ValueError as error:
            raise ValueError(f"--set {shown}: the value is not YAML: {error}") from error
        content = _put(content, path, value, shown)
    return content


def _put(content: Any, path: list[str], value: Any, setting: str) -> Any:
    if not path:
        return value
    first, rest = path[0], path[1:]
    if isinstance(content, list):
        place = int(first) if first.isdecimal() and len(first) < 10 else len(content)
        if place >= len(content):
            where = f"{shortened(first)} is not a place in a list of {len(content)} (0 is the first)"
            raise ValueError(f"--set {setting}: {where}")
        return [_put(item, rest, value, setting) if index == place else item for index, item in enumerate(content)]
    if content is not None and not isinstance(content, dict):
        raise ValueError(f"--set {setting}: there is no key below a value such as {shown_value(content)}")
    return (content or {}) | {first: _put((content or {}).get(first), rest, value, setting)}


def validated(model: type[Model], content: dict[str, Any], *, where: str) -> Model:
    """The record of a content.

    Raises:
        ValueError: Each key that is wrong, with the value given and what would be accepted.
    """
    _check_texts(content, where)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{where}:\n{explain(error, model)}") from error


def _check_texts(content: Any, where: str) -> None:
    """Refuse texts that no file and no path can hold, keys included."""
    waiting = [("", content)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, str) and (bad := _NO_TEXT.search(value)):
            raise ValueError(
                f"{where}:\n  {shortened(key)}: a text with U+{ord(bad[0]):04X} (given: {shown_value(value)})"
            )
        if isinstance(value, dict):
            waiting += [(f"{key}.{name}".lstrip("."), part) for name, item in value.items() for part in (name, item)]
        elif isinstance(value, list):
            waiting += [(f"{key}.{index}", item) for index, item in enumerate(value)]
