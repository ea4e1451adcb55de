"""A run's name: it stands for one configuration, which lies in the run's folder, and names what the run makes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from overedit.editing.storage.atomic import replace_file
from overedit.editing.storage.checksums import sealed, unsealed
from overedit.flows.config.models import EditingConfig
from overedit.tasks.runs.run import Run, folder_name

logger = logging.getLogger(__name__)


def check_names(config: EditingConfig) -> None:
    """Check that methods that differ do not share a folder.

    Raises:
        ValueError: Two would.
    """
    named: dict[str, Any] = {}
    for label, method in zip(config.labels, config.methods, strict=True):
        if named.setdefault(folder_name(label), method) != method:
            raise ValueError(f"methods: two of them would both be called {folder_name(label)!r}; put them in two runs")


def write_configuration(run: Run, config: EditingConfig) -> None:
    """Leave a run's configuration in its folder, for the next time that the same name is used.

    Raises:
        ValueError: Another one was left there since the plan was made.
    """
    check_same_configuration(run, config)
    with replace_file(run.folder / "run.json") as stream:
        stream.write(sealed(_as_json(config)))


def check_same_configuration(run: Run, config: EditingConfig) -> None:
    """Check that a run's name was not used for another one.

    Raises:
        ValueError: It was; what differs.
    """
    path = run.folder / "run.json"
    before, now = _configuration_before(path), json.loads(_as_json(config))
    if before is None:
        return
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if changed:
        lines = [f"  {key}: was {_shown(before.get(key))}, is now {_shown(now.get(key))}" for key in changed]
        raise ValueError(
            f"name: a run named {run.name!r} is there already with a different configuration:\n"
            + "\n".join(lines)
            + f"\nGive this one another name (--set name=...), or remove {path.parent} to start anew."
        )


def _configuration_before(path: Path) -> dict[str, Any] | None:
    """What a run was begun with; None where it was not, or where that cannot be read and is written anew."""
    if not path.is_file():
        return None
    try:
        return dict(json.loads(unsealed(path.read_bytes())))
    except (ValueError, TypeError) as error:
        logger.warning("passed over a damaged %s, which will be written anew: %s", path, error)
        return None


def _as_json(config: EditingConfig) -> str:
    return json.dumps(config.model_dump(mode="json", exclude={"home", "trajectories_at_once"}), indent=1) + "\n"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
