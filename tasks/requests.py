"""Datasets into `EditRequest`s: options, order, duplicates and conflicts, and the report of what was found."""

from __future__ import annotations

import difflib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from overedit.editing.method import Progress, silent
from overedit.editing.requests import EditRequest
from overedit.tasks.dataset_conflicts import Conflict, ConflictRule, find_overwritten, settle
from overedit.tasks.dataset_files import Row, read_file, read_hub
from overedit.tasks.dataset_records import RowReader, to_requests
from overedit.tasks.datasets_catalog import HUBS, LAYOUTS, Hub, Layout
from overedit.tasks.stored_requests import StoredRequests
from overedit.tasks.system.progress import counted
from overedit.tasks.system.untrusted import shown_value

DatasetName = Literal[
    "pocket",
    "zsre",
    "counterfact",
    "wikibigedit",
    "ultraeditbench",
    "fever",
    "mquake",
    "hardedit",
    "hardcf",
    "file",
]
DATASETS: tuple[str, ...] = get_args(DatasetName)

__all__ = [
    "DATASETS",
    "DatasetOptions",
    "DatasetReport",
    "FileColumns",
    "RequestSet",
    "find_overwritten",
    "load_requests",
]


class FileColumns(BaseModel):
    """Which columns of your own file hold what; a column named here must be in every row."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    prompt: str = "prompt"
    """The edit prompt, subject included; `{}` in it is the subject's place."""
    target_new: str = "target_new"
    """The new answer."""
    case_id: str | None = None
    """Identifier of the row (text or whole number); rows are numbered where there is none."""
    subject: str | None = None
    """The subject, as it stands in the prompt."""
    target_true: str | None = None
    """The answer before the edit; of a list, the first that differs from the new one."""
    rephrase_prompts: str | None = None
    """One other phrasing, or a list."""
    locality: str | None = None
    """One prompt about another fact, a list, or a list of objects with `prompt` and `answer`."""
    locality_answers: str | None = None
    """The answers to `locality`: a list as long, or one text for all."""
    portability: str | None = None
    """As `locality`, for prompts whose answer follows from the new fact."""
    portability_answers: str | None = None
    """As `locality_answers`."""
    text_prompts: str | None = None
    """One beginning of a longer text, or a list."""
    references: str | None = None
    """One text that such longer texts should be like, or a list."""

    def layout(self) -> Layout:
        """The columns as a layout; a field that is not named may stand in a column of its own name."""
        return Layout(
            prompt=self.prompt,
            target_new=self.target_new,
            case_id=self.case_id or "case_id",
            subject=self.subject or "subject",
            target_true=(self.target_true or "target_true",),
            rephrase=(self.rephrase_prompts or "rephrase_prompts",),
            persona=("persona_prompts",),
            text=(self.text_prompts or "text_prompts",),
            references=(self.references or "references",),
            locality=((self.locality or "locality", self.locality_answers or "locality_answers"),),
            portability=((self.portability or "portability", self.portability_answers or "portability_answers"),),
            required=tuple(self.model_dump(exclude_none=True, exclude={"prompt", "target_new"}).values()),
        )


class DatasetOptions(BaseModel):
    """Which edits, how many, and in which order."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: DatasetName = "pocket"
    """A dataset known by name (its columns are known), or `file` for your own columns."""
    path: Path | None = None
    """A local JSON, JSONL or Parquet file; without one a named dataset comes from the dataset hub, if it is there."""
    hub: str | None = None
    """Another hub id than the dataset's own."""
    split: str | None = None
    """Another split on the hub than the dataset's own."""
    revision: str | None = None
    """Commit, branch or tag on the hub; name a commit to have the same rows for ever."""
    files: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Other files on the hub than the dataset's own, e.g. one of WikiBigEdit's intervals of time."""
    limit: int | None = Field(default=None, ge=1)
    """How many edits to take, after ordering; all where not given."""
    order_seed: int | None = Field(default=0, ge=-(2**63), lt=2**63)
    """Seed of the order of editing; null keeps the dataset's order."""
    columns: FileColumns = FileColumns()
    """For `file`: which column holds what."""
    conflicts: ConflictRule = "last"
    """When a prompt comes again with another target: keep both edits (the last wins), keep the first alone, or stop."""

    @field_validator("name", mode="before")
    @classmethod
    def _known(cls, name: Any) -> Any:
        if name in DATASETS:
            return name
        near = difflib.get_close_matches(name[:40].lower() if isinstance(name, str) else "", DATASETS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown dataset {shown_value(name)}{hint} (known: {', '.join(DATASETS)})")

    @model_validator(mode="after")
    def _fitting(self) -> DatasetOptions:
        if self.name == "file" and self.path is None:
            raise ValueError("dataset 'file' needs `path`, a JSON, JSONL or Parquet file")
        if self.name != "file" and self.columns != FileColumns():
            raise ValueError(f"`columns` is for dataset 'file'; the columns of {self.name!r} are known")
        on_hub = {"hub": self.hub, "split": self.split, "revision": self.revision, "files": self.files}
        given = [key for key, value in on_hub.items() if value is not None]
        if given and (self.path is not None or self.name not in LAYOUTS):
            raise ValueError(f"`{given[0]}` is for a dataset of the hub, not for {self.path or repr(self.name)}")
        if self.name in LAYOUTS and self.name not in HUBS and self.path is None and self.hub is None:
            raise ValueError(
                f"dataset {self.name!r} has no place on the dataset hub that is known; name a local file by `path` "
                "(JSON, JSONL or Parquet), or the id of a dataset there by `hub`"
            )
        if self.name == "pocket" and self.path is not None:
            raise ValueError("dataset 'pocket' is generated and takes no `path`; use name 'file' for your own rows")
        return self


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

    requests: StoredRequests
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
