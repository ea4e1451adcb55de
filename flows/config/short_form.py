"""The short form of a configuration: the few values that a form asks for, over a configuration or instead of one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from overedit.editing.storage.checksums import digest
from overedit.flows.config.loading import named_content, with_values
from overedit.tasks.runs.run import folder_name

_LONGEST_NAME = 64  # characters of a run's name


class ShortForm(NamedTuple):
    """What a form gives; what is empty, or 0, is not given."""

    config: str = ""
    """A shipped configuration or a YAML file, which the other values change; without it they are the configuration."""
    name: str = ""
    """The run's name; left out, the configuration's if nothing is changed, else one made of model, dataset, methods."""
    model: str = ""
    dataset: str = ""
    methods: Sequence[str] = ()
    """Methods by name."""
    values: Mapping[str, Any] = MappingProxyType({})
    """Values of dotted keys."""
    settings: Mapping[str, Any] = MappingProxyType({})
    """Values of further dotted keys, empty ones included."""

    @property
    def where(self) -> str:
        """The name of the configuration in error messages."""
        return self.config or "the parameters"

    def content(self) -> dict[str, Any]:
        """The keys of the configuration.

        Raises:
            ValueError: There is no such configuration, or a key is below a value that has no keys.
        """
        configured = named_content(self.config)[0] if self.config else {}
        content = dict(configured)
        if self.model:
            content["model"] = self.model
        if self.dataset and self.dataset != _dataset(content):
            content["dataset"] = {"name": self.dataset}  # the keys of another dataset do not fit this one
        if self.methods:
            content["methods"] = _methods(content.get("methods"), self.methods)
        given = {key: value for key, value in self.values.items() if value}
        content = with_values(content, given | dict(self.settings))
        if self.name:
            content["name"] = self.name
        elif content != configured and content.get("name") == configured.get("name"):
            content["name"] = _name(content)  # so that the history of the configuration's own name holds no others
        return content


def _dataset(content: Mapping[str, Any]) -> str | None:
    dataset = content.get("dataset")
    return str(dataset.get("name")) if isinstance(dataset, Mapping) else None


def _methods(configured: Any, names: Sequence[str]) -> list[Any]:
    """The methods named, each with its settings in the configuration, if it is there."""
    found: dict[str, list[Any]] = defaultdict(list)
    for method in configured if isinstance(configured, list) else ():
        found[_method_name(method)].append(method)
    return [method for name in dict.fromkeys(names) for method in found[name] or [{"method": name}]]


def _method_name(method: Any) -> str:
    return str(method.get("method") if isinstance(method, Mapping) else method)


def _name(content: Mapping[str, Any]) -> str:
    """A name made of model, dataset and methods."""
    methods = content.get("methods")
    names = [_method_name(method) for method in methods] if isinstance(methods, list) else []
    label = folder_name(" ".join([Path(str(content.get("model", "pocket"))).name, _dataset(content) or "", *names]))
    return label if len(label) <= _LONGEST_NAME else f"{label[: _LONGEST_NAME - 17]}-{digest(label)}"
