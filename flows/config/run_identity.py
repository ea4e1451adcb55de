"""The identity of a run: one name has one configuration, which is kept in the run's folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from overedit.editing.storage.checksums import sealed, unsealed
from overedit.flows.config.models import EditingConfig
from overedit.tasks.runs.run import WITHOUT_EFFECT, Run, folder_name, short_name
from overedit.tasks.storage.stores import check_reachable
from overedit.tasks.storage.working_copy import pull_file, replace_file, shown_path, url_of

logger = logging.getLogger(__name__)


def run_of(config: EditingConfig) -> Run:
    """The run that a configuration describes.

    Raises:
        ValueError: Its home is in an object store whose package is not installed.
        OSError: The store cannot be used.
    """
    home = config.home.resolve()
    if (url := url_of(home)) is not None:
        check_reachable(url)
    return Run(name=config.name, home=home, model=short_name(config.model), dataset=config.dataset.name)


def check_names(config: EditingConfig) -> None:
    """Check that different methods have different folders.

    Raises:
        ValueError: Two methods would share a folder.
    """
    named: dict[str, Any] = {}
    for label, method in zip(config.labels, config.methods, strict=True):
        if named.setdefault(folder_name(label), method) != method:
            raise ValueError(f"methods: two of them would both be called {folder_name(label)!r}; put them in two runs")


def write_configuration(run: Run, config: EditingConfig, *, changed: bool = False) -> None:
    """Write the configuration into the run's folder, to be compared when the name is used again.

    Args:
        run: The run.
        config: Its configuration.
        changed: Replace another configuration.

    Raises:
        ValueError: Another configuration was written there since the plan was made.
    """
    if not changed:
        check_same_configuration(run, config)
    with replace_file(run.folder / "run.json") as stream:
        stream.write(sealed(_as_json(config)))


def check_same_configuration(run: Run, config: EditingConfig) -> None:
    """Check that the name was not used with another configuration.

    Raises:
        ValueError: It was; the message lists the keys that differ.
    """
    path = run.folder / "run.json"
    pull_file(path)
    before, now = _configuration_before(path), json.loads(_as_json(config))
    if before is None:
        return
    changed = list(_differences(before, now))
    if changed:
        lines = [f"  {key}: was {_shown(old)}, is now {_shown(new)}" for key, old, new in changed]
        raise ValueError(
            f"name: a run named {run.name!r} is there already with a different configuration:\n"
            + "\n".join(lines)
            + "\nGive this one another name (--set name=...), or run it as a new instance (--changed): rows of "
            "earlier ones stay, and checkpoints are replaced where they differ. Or remove "
            f"{shown_path(path.parent)} to start over."
        )


def _configuration_before(path: Path) -> dict[str, Any] | None:
    """The configuration in a run's folder; None if there is none, or if it is damaged and will be rewritten."""
    if not path.is_file():
        return None
    try:
        return dict(json.loads(unsealed(path.read_bytes())))
    except (ValueError, TypeError) as error:
        logger.warning("ignored a damaged %s, which will be rewritten: %s", path, error)
        return None


def _as_json(config: EditingConfig) -> str:
    return json.dumps(config.model_dump(mode="json", exclude={*WITHOUT_EFFECT}), indent=1) + "\n"


def _differences(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each key that differs, as (`ranges.locft_bf.batch_size`, value before, value now); None where it is absent."""
    pairs: Iterable[tuple[Any, Any, Any]]
    if isinstance(before, dict) and isinstance(now, dict):
        pairs = ((name, before.get(name), now.get(name)) for name in sorted(before.keys() | now.keys()))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = zip(range(len(now)), before, now, strict=True)
    else:
        if before != now:
            yield key, before, now
        return
    for name, old, new in pairs:
        yield from _differences(old, new, f"{key}.{name}" if key else str(name))


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
