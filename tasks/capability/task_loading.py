"""lm-eval's task objects for what is asked: found by name, given their worked examples, and read once a process."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from overedit.tasks.capability.local_items import LocalItems, files_digest, reading_local
from overedit.tasks.capability.options import POCKET, AskedTask, CapabilityOptions

FEWSHOT_SEED = 1234
"""Chooses the worked examples (lm-eval's own default)."""


class LoadedTasks(NamedTuple):
    """What is asked for, ready to be evaluated."""

    task_dict: Any
    """As `lm_eval.evaluate` takes it: `tasks`, `groups` and `group_map`."""
    part_of: dict[str, str]
    """Task or group -> the group whose score it goes into; what is not in it counts by itself."""

    def reseed(self) -> None:
        """Draw the same worked examples again: each evaluation would go on in the row of random numbers."""
        for task in self.task_dict["tasks"].values():
            task.set_fewshot_seed(seed=FEWSHOT_SEED)

    def num_items(self, most: int | None, *, of: Callable[[Any], bool] = lambda task: True) -> dict[str, int]:
        """Items asked of each task or group that counts by itself, where each task gives `most` at most.

        Args:
            most: None is all.
            of: Which task objects are counted.
        """
        sizes: dict[str, int] = {}
        for name, task in self.task_dict["tasks"].items():
            if not of(task):
                continue
            counted, size = self.part_of.get(name, name), len(task.eval_docs)
            sizes[counted] = sizes.get(counted, 0) + (size if most is None else min(size, most))
        return sizes


def load_tasks(options: CapabilityOptions) -> LoadedTasks:
    """The task objects; loaded once a process, which takes seconds to minutes.

    Raises:
        ValueError: There is no such task (says which ones have like names), one is asked twice, or a local file, split
            or column is missing.
        OSError: A task's items can be neither found nor downloaded.
    """
    with quiet():
        return _loaded(options.model_dump_json(), tuple(files_digest(options.files).items()))


@lru_cache(maxsize=1)
def _loaded(options_json: str, _digests: tuple[tuple[str, str], ...]) -> LoadedTasks:
    options = CapabilityOptions.model_validate_json(options_json)
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
    """lm-eval's list of tasks, with all of its own only if they are needed: it takes seconds to look through them."""
    from lm_eval.tasks import TaskManager

    folder = _pocket_tasks() if options.include_path == POCKET else options.include_path
    if folder is not None and not folder.is_dir():
        raise ValueError(f"capability.include_path: there is no folder {folder}")
    names = [asked.name for asked in options.asked]
    manager = TaskManager(include_path=folder, include_defaults=False)
    if not set(names) <= set(manager.all_tasks):
        manager = TaskManager(include_path=folder)
    for name in names:
        if name not in manager.all_tasks:
            near = get_close_matches(name, manager.all_tasks, n=3) or manager.all_tasks[:3]
            raise ValueError(f"capability.tasks: there is no task {name!r}; like it are {', '.join(near)}")
    return manager


def _load_one(manager: Any, asked: AskedTask, options: CapabilityOptions) -> Any:
    """A task, or all of a group or tag, with local items where the options name some."""
    from jinja2 import UndefinedError

    def local_items(config: Any) -> LocalItems | None:
        path = options.files.get(config.task, options.files.get(asked.name))
        return None if path is None else LocalItems(path, _shots(config, asked, options))

    try:
        with reading_local(local_items):
            return manager.load([asked.name])
    except (KeyError, UndefinedError) as error:
        if not options.files:
            raise
        column = error.args[0] if isinstance(error, KeyError) else str(error)
        path = options.files.get(asked.name, ", ".join(map(str, options.files.values())))
        raise ValueError(f"capability.files.{asked.name}: {path} lacks what the task reads: {column}") from error
    except OSError as error:
        reason = " ".join(str(error).split())[:200]
        raise OSError(
            f"capability.tasks: the items of {asked.name!r} could not be read ({reason}); without a network, name "
            f"them in capability.files.{asked.name}"
        ) from error


def _shots(config: Any, asked: AskedTask, options: CapabilityOptions) -> int:
    """Worked examples of a task: its own in `shots`, `num_fewshot`, the suite's, or what its file says."""
    for name in (config.task, asked.name):
        if name in options.shots:
            return options.shots[name]
    said = asked.shots if options.num_fewshot is None else options.num_fewshot
    own = config.num_fewshot
    if own == 0 or said is None:  # a task that says 0 means it
        return own or 0
    return said


def _parts(groups: dict[str, Any]) -> dict[str, str]:
    """What lies in a group that has a score -> that group; of groups within groups the outermost."""
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


def _pocket_tasks() -> Path:
    """The pocket world's tasks, always in the same place, since `datasets` keeps a copy for each place it read from."""
    from overedit.tasks.pocket_world.lm_eval_items import write_lm_eval_tasks

    folder = Path(tempfile.gettempdir()) / f"overedit-pocket-tasks-{os.getuid()}"
    write_lm_eval_tasks(folder)
    return folder


@contextmanager
def quiet() -> Iterator[None]:
    """lm-eval and `datasets` without progress bars and notes: the flow shows its own."""
    import datasets
    import lm_eval.api.task as building

    log = logging.getLogger("lm_eval")
    level, bar, shown = log.level, building.tqdm, not datasets.are_progress_bars_disabled()
    log.setLevel(logging.ERROR)
    building.tqdm = partial(bar, disable=True)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        log.setLevel(level)
        building.tqdm = bar
        if shown:
            datasets.enable_progress_bars()
