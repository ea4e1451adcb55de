"""Loads lm-eval's task objects by name, with their worked examples and local items."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from overedit.tasks.evaluation.capability.lm_eval_patches import quiet, replaced_downloads
from overedit.tasks.evaluation.capability.local_items import LocalItems, files_digest, read_local_items
from overedit.tasks.evaluation.capability.options import AskedTask, CapabilityOptions
from overedit.tasks.pocket_world.shipped import ShippedWorld
from overedit.tasks.system.untrusted import error_message

FEWSHOT_SEED = 1234
"""Seed of the choice of worked examples (lm-eval's own default)."""


class LoadedTasks(NamedTuple):
    """The task objects of the benchmarks, ready to be evaluated."""

    task_dict: Any
    """As `lm_eval.evaluate` takes it: `tasks`, `groups` and `group_map`."""
    part_of: dict[str, str]
    """Task or group -> the group whose score includes it; one that is missing here counts by itself."""

    def reseed(self) -> None:
        """Reset the random numbers, so that every evaluation draws the same worked examples."""
        for task in self.task_dict["tasks"].values():
            task.set_fewshot_seed(seed=FEWSHOT_SEED)

    def num_items(self, most: int | None, *, of: Callable[[Any], bool] = lambda task: True) -> dict[str, int]:
        """Count the items of each task or group that counts by itself.

        Args:
            most: The most items taken of each task; None is all.
            of: Selects the task objects that are counted.
        """
        sizes: dict[str, int] = {}
        for name, task in self.task_dict["tasks"].items():
            if not of(task):
                continue
            counted, size = self.part_of.get(name, name), len(task.eval_docs)
            sizes[counted] = sizes.get(counted, 0) + (size if most is None else min(size, most))
        return sizes


class TaskLoader:
    """Loads the task objects when they are first needed and keeps them; a run has one loader for all its checkpoints.

    Args:
        options: Which benchmarks.
    """

    def __init__(self, options: CapabilityOptions) -> None:
        self.options = options
        self._loaded: LoadedTasks | None = None
        self._digests: dict[str, str] = {}

    def load(self) -> LoadedTasks:
        """The task objects, loaded now if they were not, or if a local file has changed since; see `load_tasks`."""
        digests = files_digest(self.options.files)
        if self._loaded is None or digests != self._digests:
            self._loaded, self._digests = load_tasks(self.options), digests
        return self._loaded


def load_tasks(options: CapabilityOptions) -> LoadedTasks:
    """Load the task objects, which takes seconds to minutes.

    Raises:
        ValueError: There is no such task (the message lists similar names), one is asked twice, or a local file, split
            or column is missing.
        OSError: A task's items can be neither found nor downloaded.
    """
    files_digest(options.files)  # raises for a missing file before anything is loaded
    with quiet():
        return _load(options)


def _load(options: CapabilityOptions) -> LoadedTasks:
    manager = _manager(options)
    whole: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    part_of: dict[str, str] = {}
    for asked in options.asked:
        loaded = _load_one(manager, asked, options)
        if twice := whole["tasks"].keys() & loaded["tasks"].keys():
            raise ValueError(f"capability.tasks: {asked.name} holds {min(twice)!r}, which is asked already")
        for kind, items in loaded.items():
            whole[kind] |= items
        for task in loaded["tasks"].values():
            task.set_config(key="num_fewshot", value=_shots(task.config, asked, options))
        part_of |= _parts(loaded["groups"])
    known = {*(asked.name for asked in options.asked), *whole["tasks"]}
    for key, names in (("files", options.files), ("shots", options.shots)):
        if strange := sorted(names.keys() - known):
            raise ValueError(
                f"capability.{key}: {strange[0]!r} is not asked; asked are {', '.join(sorted(known)[:10])}"
            )
    return LoadedTasks(whole, part_of)


def _manager(options: CapabilityOptions) -> Any:
    """Make lm-eval's list of tasks; listing its own takes seconds, so they are included only if needed."""
    from lm_eval.tasks import TaskManager

    folder = options.include_path if options.world is None else _written_tasks(options.world)
    if folder is not None and not folder.is_dir():
        raise ValueError(f"capability.include_path: there is no folder {folder}")
    names = [asked.name for asked in options.asked]
    manager = TaskManager(include_path=folder, include_defaults=False)
    if not set(names) <= set(manager.all_tasks):
        manager = TaskManager(include_path=folder)
    for name in names:
        if name not in manager.all_tasks:
            near = get_close_matches(name, manager.all_tasks, n=3) or manager.all_tasks[:3]
            raise ValueError(f"capability.tasks: there is no task {name!r}; similar names: {', '.join(near)}")
    return manager


def _load_one(manager: Any, asked: AskedTask, options: CapabilityOptions) -> Any:
    """Load a task, or all tasks of a group or tag, with local items where the options name some."""
    from jinja2 import UndefinedError

    def local_items(config: Any) -> dict[str, Any] | None:
        path = options.files.get(config.task, options.files.get(asked.name))
        return None if path is None else read_local_items(config, LocalItems(path, _shots(config, asked, options)))

    try:
        with replaced_downloads(local_items):
            return manager.load([asked.name])
    except (KeyError, UndefinedError) as error:
        if not options.files:
            raise
        column = error.args[0] if isinstance(error, KeyError) else str(error)
        path = options.files.get(asked.name, ", ".join(map(str, options.files.values())))
        raise ValueError(f"capability.files.{asked.name}: {path} lacks what the task reads: {column}") from error
    except OSError as error:
        reason = error_message(error)
        raise OSError(
            f"capability.tasks: the items of {asked.name!r} could not be read ({reason}); without a network, name "
            f"them in capability.files.{asked.name}"
        ) from error


def _shots(config: Any, asked: AskedTask, options: CapabilityOptions) -> int:
    """The number of worked examples of a task: from `shots`, `num_fewshot`, the suite, or the task's file."""
    for name in (config.task, asked.name):
        if name in options.shots:
            return options.shots[name]
    wanted = asked.shots if options.num_fewshot is None else options.num_fewshot
    own = config.num_fewshot
    if own == 0 or wanted is None:  # a task file that sets 0 allows no others
        return own or 0
    return wanted


def _parts(groups: dict[str, Any]) -> dict[str, str]:
    """Map each task or group to the group whose score includes it; of nested groups, to the outermost."""
    inner = {group.name for outer in groups.values() for group in outer.get_all_groups(recursive=False)}
    waiting = [group for name, group in groups.items() if name not in inner]
    found: dict[str, str] = {}
    while waiting:
        group = waiting.pop()
        if group.has_aggregation:
            within = [part.name for part in group.get_all_groups()]
            within += [task.task_name for task in group.get_all_tasks()]
            found |= dict.fromkeys(within, group.name)
        else:
            waiting += group.get_all_groups(recursive=False)
    return found


def _written_tasks(world: ShippedWorld) -> Path:
    """Write a shipped world's tasks, always to the same folder: `datasets` caches a copy for each folder it reads."""
    folder = Path(tempfile.gettempdir()) / f"overedit-pocket-tasks-{os.getuid()}"
    world.write_lm_eval_tasks(folder)
    return folder
