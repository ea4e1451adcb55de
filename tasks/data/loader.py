"""Datasets into `EditRequest`s: options, order, duplicates and conflicts, and the report of what was found."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from overedit.editing.method import Progress, silent
from overedit.editing.requests import EditRequest
from overedit.tasks.data.catalog import HUBS, LAYOUTS, Hub
from overedit.tasks.data.deduplication import Conflict, find_overwritten, settle
from overedit.tasks.data.options import DATASETS, DatasetOptions, FileColumns
from overedit.tasks.data.reader import Row, read_file, read_hub
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.data.row_parser import RowReader, to_requests
from overedit.tasks.system.progress import counted
from overedit.tasks.system.untrusted import shown_value

__all__ = [
    "DATASETS",
    "DatasetOptions",
    "DatasetReport",
    "FileColumns",
    "RequestSet",
    "find_overwritten",
    "load_requests",
]


class DatasetReport(NamedTuple):
    """What reading a dataset found."""

    name: str
    source: str
    num_rows: int
    num_requests: int
    num_without_target: int
    """Rows that ask for no new answer, which are left out; only some datasets have such."""
    duplicates: tuple[tuple[str, str], ...]
    """(case left out, earlier case of the same prompt and target)."""
    conflicts: tuple[Conflict, ...]
    left_out: tuple[str, ...]
    """Cases left out because `conflicts: first` keeps an earlier target."""
    overwritten: Mapping[str, str]
    """Case -> later case that gives its prompt another target."""
    ceiling: float
    """The highest reliability reachable after all edits when every case is counted, overwritten ones too, in (0, 1]."""
    num_without_subject: int
    """Requests that have no subject, or whose prompt does not hold it."""

    def lines(self) -> list[str]:
        """The report in sentences; of many conflicts the first three."""
        found = [f"{self.name}: {self.num_requests:,} edits of {self.num_rows:,} rows from {self.source}"]
        if self.num_without_target:
            found.append(f"{self.num_without_target} rows left out (no new answer)")
        if self.duplicates:
            found.append(f"{len(self.duplicates)} duplicates left out (same prompt and target as an earlier edit)")
        if self.conflicts:
            found.append(f"{len(self.conflicts)} prompts have conflicting targets:")
            found += [f"  {conflict}; {conflict.winner} wins" for conflict in self.conflicts[:3]]
        if self.left_out:
            found.append(f"{len(self.left_out)} edits left out because an earlier edit has another target")
        if self.overwritten:
            found.append(
                f"{len(self.overwritten)} edits are overwritten by a later one; counting them too, "
                f"reliability after all edits cannot exceed {self.ceiling:.2%}"
            )
        return found


class RequestSet(NamedTuple):
    """Edits in the order of editing, and what reading them found."""

    requests: RequestStore
    report: DatasetReport


def load_requests(options: DatasetOptions, *, progress: Progress = silent) -> RequestSet:
    """The edits of a dataset in their order of editing.

    Every row of a local file is checked, those beyond `limit` too. A growing `limit` only adds edits at the end, and to
    earlier ones the portability prompts of duplicates (`settle`). A case of several edits stays together; the limit
    counts edits, and a case that it cuts has no portability prompts.

    Args:
        options: Which edits.
        progress: Told (edits read, edits or rows in all).

    Raises:
        ValueError: the file, a row or an option is bad; the message names it (and the row and column).
    """
    found, source, num_rows = _pocket(options) if options.name == "pocket" else _rows(options)
    found = counted(found, progress, options.limit or num_rows)
    settled = settle(found, limit=options.limit, rule=options.conflicts)
    num_lost = len(settled.duplicates) + len(settled.left_out)
    if options.limit is not None and len(settled.requests) < options.limit:
        raise ValueError(
            f"limit: {options.limit:,} is more than the {len(settled.requests):,} edits that {source} has"
            f" ({num_rows:,} rows, {num_lost:,} of them duplicates or left out)"
        )
    report = DatasetReport(
        name=options.name,
        source=source,
        num_rows=num_rows,
        num_requests=len(settled.requests),
        num_without_subject=sum((request.subject or "\0") not in request.prompt for request in settled.requests),
        **{key: value for key, value in settled._asdict().items() if key != "requests"},
    )
    return RequestSet(settled.requests, report)


class _Found(NamedTuple):
    requests: Iterator[Sequence[EditRequest]]
    """The edits of each row, in order of editing."""
    source: str
    num_rows: int


def _pocket(options: DatasetOptions) -> _Found:
    from overedit.tasks.pocket_world.world import default_world

    world = default_world()
    num_edits = world.num_known_edits if options.limit is None else options.limit
    if num_edits > world.capacity:
        raise ValueError(f"limit: {num_edits:,} is more than the {world.capacity:,} edits that the pocket world has")
    edits = ((request,) for request in world.edits(num_edits, seed=options.order_seed or 0))
    return _Found(edits, "the pocket world", num_edits)


def _rows(options: DatasetOptions) -> _Found:
    if options.path is not None:
        rows: Sequence[Row] = read_file(options.path)
        source = str(options.path)
    else:
        default = HUBS.get(options.name, Hub(options.hub or "", "train"))
        files = options.files or (() if options.hub or options.split else default.files)
        hub = Hub(options.hub or default.dataset_id, options.split or default.split, files)
        rows = read_hub(hub, options.revision)
        source = f"{hub.dataset_id} ({', '.join(filter(None, [hub.split, *(options.files or ()), options.revision]))})"
    return _Found(_in_order(rows, source, options), source, len(rows))


def _in_order(rows: Sequence[Row], source: str, options: DatasetOptions) -> Iterator[Sequence[EditRequest]]:
    """Each row's requests in order of editing; a local file's rows are all checked before the first is given."""
    layouts = (options.columns.layout(),) if options.name == "file" else LAYOUTS[options.name]
    prefix = "row" if options.name == "file" else options.name

    def requests(index: int) -> list[EditRequest]:
        return to_requests(RowReader(source, index + 1, rows[index]), layouts, prefix)

    order = list(range(len(rows)))
    if options.path is not None:
        _check_case_ids((requests(index) for index in order), source)
    if options.order_seed is not None:
        random.Random(options.order_seed).shuffle(order)
    return (requests(index) for index in order)


def _check_case_ids(rows: Iterable[Sequence[EditRequest]], source: str) -> None:
    first: dict[str, int] = {}
    for number, request in ((number, request) for number, row in enumerate(rows, 1) for request in row):
        if (row := first.setdefault(request.case_id, number)) != number:
            raise ValueError(f"{source}, row {number}: case id {shown_value(request.case_id)} is row {row}'s already")
