"""Instances: the executions of a run, each with its commit, packages and hardware, and the files that are its results.

An instance is a row of the table `instances`, written when it begins and again when it ends. The table `instance_files`
lists its files of rows. Files that an earlier instance made with the same inputs, code and packages are shared; what a
newer instance replaces stays in the warehouse's history.
"""

from __future__ import annotations

import getpass
import json
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from overedit.tasks.runs.run import Run, hardware
from overedit.tasks.system.code_version import code_version
from overedit.tasks.system.packages import versions
from overedit.tasks.warehouse.tables import TABLES, Row
from overedit.tasks.warehouse.warehouse import Warehouse

_HEXADECIMAL = re.compile(r"[0-9a-f]{16,}")
_KEY = "instance"  # an instance's own rows are replaced, not kept
_COMPARED = ("commit", "dirty", "model_digest", "requests_digest", "hardware", "host")


@dataclass
class Instance:
    """The instance that is running."""

    run: Run
    row: Row
    """Its row of the table `instances`."""
    continues: bool
    """Whether the instance before it was stopped or killed."""

    @property
    def name(self) -> str:
        """Its id, e.g. `20261130T020000-3f9a`; ids sort by time."""
        return str(self.row["instance"])

    def store(self, **values: Any) -> None:
        """Change values of its row, and store it."""
        self.row |= values
        _store(self.run.warehouse, "instances", self.run.name, self.name, [self.row])

    def store_files(self, *, all_done: bool) -> None:
        """Store the list of its files.

        Args:
            all_done: Whether every stage has run. Then all other current rows of the run are outdated and move to the
                history.
        """
        log, warehouse = self.run.files, self.run.warehouse
        files = log.shared | log.computed
        rows = [
            {"table_name": table, "path": path, "file": PurePosixPath(path).name, "computed": path in log.computed}
            for path, table in sorted(files.items())
        ]
        _store(warehouse, "instance_files", self.run.name, self.name, rows)
        if all_done:
            warehouse.keep_only(self.run.name, files.keys())
        num_computed = sum(table != "runs" for table in log.computed.values())
        self.store(num_computed=num_computed, num_shared=len(files) - len(log.computed))


def begin(
    run: Run, *, config: str, model_digest: str, requests_digest: str, requested_by: str, flow_run_id: str | None
) -> Instance:
    """Begin an instance of a run; the caller holds the run's lock.

    Args:
        run: The run.
        config: Its whole configuration, JSON.
        model_digest: Digest of the model's weights.
        requests_digest: Digest of the edit requests.
        requested_by: Who asked for it, in words.
        flow_run_id: Of Prefect, if it is a flow run.
    """
    warehouse = run.warehouse
    before = instances_of(warehouse, run.name)
    for earlier in before:
        if earlier["status"] == "running":  # it was killed: this process holds the run's lock
            _store(warehouse, "instances", run.name, earlier["instance"], [earlier | {"status": "stopped"}])
    commit, dirty = code_version()
    started_at = datetime.now(UTC)
    row: Row = dict.fromkeys(TABLES["instances"].names) | {
        "run": run.name,
        "instance": f"{started_at:%Y%m%dT%H%M%S}-{secrets.token_hex(2)}",
        "started_at": started_at,
        "status": "running",
        "commit": commit,
        "dirty": dirty,
        "versions": json.dumps(versions()),
        "model_digest": model_digest,
        "requests_digest": requests_digest,
        "hardware": hardware(),
        "host": socket.gethostname(),
        "requested_by": requested_by,
        "config": config,
        "flow_run_id": flow_run_id,
    }
    row["changes"] = json.dumps(changes(before[-1], row) if before else [])
    instance = Instance(run, row, continues=bool(before) and before[-1]["ended_at"] is None)
    instance.store()
    return instance


def instances_of(warehouse: Warehouse, run: str) -> list[Row]:
    """The rows of a run's instances, the oldest first."""
    return sorted(warehouse.rows("instances", {"run": run}), key=lambda row: str(row["instance"]))


def baseline_of(warehouse: Warehouse, run: str) -> str | None:
    """The instance that was accepted last; None if none was."""
    accepted = warehouse.rows("accepted", {"run": run})
    return str(max(accepted, key=lambda row: row["accepted_at"])["instance"]) if accepted else None


def accept(warehouse: Warehouse, run: str, instance: str | None = None, *, note: str = "", by: str = "") -> str:
    """Make an instance the baseline, with which later instances are compared.

    Args:
        warehouse: Has the run.
        run: Its name.
        instance: One of its completed instances; the newest by default.
        note: Why.
        by: Who accepts it; the user by default.

    Returns:
        The instance.

    Raises:
        ValueError: The run has no such instance, or it did not complete.
    """
    completed = [row["instance"] for row in instances_of(warehouse, run) if row["status"] == "completed"]
    if not completed:
        raise ValueError(f"run: {run!r} has no completed instance that could be accepted")
    instance = instance or completed[-1]
    if instance not in completed:
        raise ValueError(f"instance: {run!r} has no completed instance {instance!r}; it has {', '.join(completed)}")
    now = datetime.now(UTC)
    row = {"accepted_at": now, "accepted_by": by or getpass.getuser(), "note": note}
    _store(warehouse, "accepted", run, instance, [row], part=now.isoformat())
    return instance


def store_gates(instance: Instance, rows: list[Row]) -> None:
    """Store the comparison of an instance with its baseline, a row per number."""
    _store(instance.run.warehouse, "gates", instance.run.name, instance.name, rows)


def changes(before: Row, after: Row) -> list[dict[str, Any]]:
    """What differs between two instances: keys of the configuration, packages, commit, data, weights and machine."""
    found = []
    for prefix, column in (("", "config"), ("package ", "versions")):
        one, other = (dict(_flat(json.loads(row[column] or "{}"))) for row in (before, after))
        keys = dict.fromkeys([*one, *other])
        found += [
            {"key": f"{prefix}{key}", "before": one.get(key), "after": other.get(key)}
            for key in keys
            if one.get(key) != other.get(key)
        ]
    found += [
        {"key": key, "before": before.get(key), "after": after.get(key)}
        for key in _COMPARED
        if before.get(key) != after.get(key)
    ]
    return found


def shown_changes(row: Row) -> str:
    """The changes of an instance in one line, each with both values."""
    found = json.loads(row["changes"] or "[]")
    return "; ".join(f"{each['key']}: {_shown(each['before'])} -> {_shown(each['after'])}" for each in found)


def _shown(value: Any) -> str:
    """A value in a message; of a digest or a commit the first ten digits."""
    text = "-" if value is None else str(value)
    return text[:10] if _HEXADECIMAL.fullmatch(text) else text


def _flat(content: Any, key: str = "") -> list[tuple[str, Any]]:
    """The values of nested mappings and lists, by dotted keys."""
    if isinstance(content, Mapping) and content:
        return [pair for name, value in content.items() for pair in _flat(value, f"{key}.{name}".lstrip("."))]
    if isinstance(content, list) and any(isinstance(item, Mapping) for item in content):
        return [pair for index, value in enumerate(content) for pair in _flat(value, f"{key}.{index}")]
    return [(key, content)]


def _store(warehouse: Warehouse, table: str, run: str, instance: str, rows: list[Row], *, part: str = "") -> None:
    partition = {"run": run, "instance": instance}
    warehouse.write(table, [row | partition for row in rows], partition=partition, key=_KEY, part=part)
