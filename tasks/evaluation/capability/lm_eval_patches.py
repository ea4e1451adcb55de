"""Every patch of lm-eval and `datasets`; each is undone at the end of its block.

- `quiet`: `lm_eval.api.task.tqdm` shows no bar, the logger `lm_eval` only errors, and `datasets` no progress bars.
- `templates_compiled_once`: `lm_eval.utils.env.from_string` keeps the templates that it has compiled.
- `replaced_downloads`: `ConfigurableTask.download` takes a task's items from elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block, lm-eval and `datasets` show no progress bars and notes (the flow shows its own)."""
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


@contextmanager
def templates_compiled_once() -> Iterator[None]:
    """Within the block, lm-eval compiles each of a task's templates once, and not for every item."""
    from lm_eval.utils import env

    compile_template, compiled = env.from_string, dict[str, Any]()

    def from_string(template: str) -> Any:
        if template not in compiled:
            compiled[template] = compile_template(template)
        return compiled[template]

    env.from_string = from_string
    try:
        yield
    finally:
        env.from_string = compile_template


@contextmanager
def replaced_downloads(find: Callable[[Any], dict[str, Any] | None]) -> Iterator[None]:
    """Within the block, lm-eval tasks that are built take their items from a function instead of a download.

    Args:
        find: Given a task's configuration, its items by split; None leaves the task its download.
    """
    from lm_eval.api.task import ConfigurableTask

    download = ConfigurableTask.download

    def found_or_download(task: Any, *arguments: Any, **options: Any) -> None:
        found = find(task.config)
        if found is None:
            download(task, *arguments, **options)
        else:
            task.dataset = found

    ConfigurableTask.download = found_or_download
    try:
        yield
    finally:
        ConfigurableTask.download = download
