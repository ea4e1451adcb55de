"""Loads a dataset as `EditRequest`s in their order of editing, and reports duplicates and conflicts."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from overedit.editing.methods.base import Progress, silent
from overedit.editing.requests import EditRequest
from overedit.tasks.data.catalog import HUBS, LAYOUTS, Hub
from overedit.tasks.data.deduplication import Deduplicated, deduplicate
from overedit.tasks.data.options import DatasetOptions
from overedit.tasks.data.reader import Row, read_file, read_hub
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.data.row_parser import RowReader, to_requests
from overedit.tasks.pocket_world.shipped import WORLDS, ShippedWorld
from overedit.tasks.system.progress import counted
from overedit.tasks.system.untrusted import shown_value


class DatasetReport(NamedTuple):
    """What reading a dataset found."""

    name: str
    source: str
    num_rows: int
    deduplicated: Deduplicated
    """All edits that were read, with their duplicates and conflicts."""
    num_without_subject: int
    """Requests that have no subject, or whose prompt does not contain it."""

    @property
    def num_requests(self) -> int:
        """Edits that were read."""
        return len(self.deduplicated.requests)

    def lines(self) -> list[str]:
        """The report in sentences; it shows the first three of many conflicts."""
        found = [f"{self.name}: {self.num_requests:,} edits of {self.num_rows:,} rows from {self.source}"]
        what = self.deduplicated
        if what.num_without_target:
            found.append(f"{what.num_without_target} rows left out (no new answer)")
        if what.duplicates:
            found.append(f"{len(what.duplicates)} duplicates left out (same prompt and target as an earlier edit)")
        if what.conflicts:
            found.append(f"{len(what.conflicts)} prompts have conflicting targets:")
            found += [f"  {conflict}; {conflict.winner} wins" for conflict in what.conflicts[:3]]
        if what.left_out:
            found.append(f"{len(what.left_out)} edits left out because an earlier edit has another target")
        if what.overwritten:
            found.append(
                f"{len(what.overwritten)} edits are overwritten by a later one; counting them too, "
                f"reliability after all edits cannot exceed {what.ceiling:.2%}"
            )
        return found


class RequestSet(NamedTuple):
    """Edits in their order of editing, and the report of the dataset."""

    requests: RequestStore
    report: DatasetReport


def load_requests(options: DatasetOptions, *, progress: Progress = silent) -> RequestSet:
    """Load the edits of a dataset in their order of editing.

    Every row of a local file is checked, also those beyond `limit`. A larger `limit` only adds edits at the end, and
    adds the portability prompts of duplicates to earlier edits (`deduplicate`). A case of several edits stays together;
    the limit counts edits, and a case that it cuts has no portability prompts.

    Args:
        options: Which edits.
        progress: Called with (edits read, number of edits or rows).

    Raises:
        ValueError: The file, a row or an option is bad; the message names it (and the row and column).
    """
    found, source, num_rows = _generated(WORLDS[options.name], options) if options.name in WORLDS else _rows(options)
    found = counted(found, progress, options.limit or num_rows)
    deduplicated = deduplicate(found, limit=options.limit, rule=options.conflicts)
    requests = deduplicated.requests
    num_lost = len(deduplicated.duplicates) + len(deduplicated.left_out)
    if options.limit is not None and len(requests) < options.limit:
        raise ValueError(
            f"limit: {options.limit:,} is more than the {len(requests):,} edits that {source} has"
            f" ({num_rows:,} rows, {num_lost:,} of them duplicates or left out)"
        )
    report = DatasetReport(
        name=options.name,
        source=source,
        num_rows=num_rows,
        deduplicated=deduplicated,
        num_without_subject=sum(not _has_subject(request) for request in requests),
    )
    return RequestSet(requests, report)


def _has_subject(request: EditRequest) -> bool:
    return bool(request.subject) and str(request.subject) in request.prompt


class _Found(NamedTuple):
    requests: Iterator[Sequence[EditRequest]]
    """The edits of each row, in order of editing."""
    source: str
    num_rows: int


def _generated(shipped: ShippedWorld, options: DatasetOptions) -> _Found:
    world = shipped.world()
    num_edits = world.num_known_edits if options.limit is None else options.limit
    if num_edits > world.capacity:
        raise ValueError(f"limit: {num_edits:,} is more than the {world.capacity:,} edits that {shipped.title} has")
    edits = ((request,) for request in world.edits(num_edits, seed=options.order_seed or 0))
    return _Found(edits, shipped.title, num_edits)


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
    """Yield each row's requests in order of editing; a local file's rows are all checked before the first."""
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
