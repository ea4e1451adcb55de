"""Overedit: how many edits can a language model take, with this method, before it breaks?

The Python API. `run` makes a benchmark and gives its results, `read` opens results that are there, `edit` edits a model
that you hold, `plot` draws, `methods` and `datasets` list. The command line calls the same functions. Nothing heavy is
imported before it is needed. Examples: docs/python.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from overedit.editing.requests import EditRequest
    from overedit.tasks.editing_job.in_memory import Edit

__all__ = ["DatasetInfo", "MethodInfo", "Results", "Run", "datasets", "edit", "methods", "plot", "read", "run"]

Format: TypeAlias = Literal["arrow", "pandas", "polars"]
"""`pyarrow.Table`, `pandas.DataFrame` or `polars.DataFrame`; the last two need their package."""


class Results:
    """The rows of a warehouse, by table, view or SQL.

    Args:
        home: The folder that holds `warehouse/`, or its URL in an object store, or the warehouse itself.

    Raises:
        ValueError: There is no warehouse, or the URL is not accepted.
    """

    def __init__(self, home: str | Path) -> None:
        from overedit.tasks.storage.working_copy import local_home

        self.home = _home_of(local_home(home))

    def sql(self, query: str, *, format: Format = "arrow", attach: Mapping[str, str | Path] | None = None) -> Any:
        """The answer to one SELECT over the tables and views; nothing is ever written.

        Args:
            query: The SELECT.
            format: Of the answer.
            attach: Name -> another folder that holds a `warehouse/`: its tables and views are `name.leaderboard`, ...

        Raises:
            ValueError: Not one reading statement, an unknown table, view or column, an unknown format, or a folder
                without a warehouse.
        """
        from overedit.tasks.warehouse.warehouse import Warehouse

        others = {name: Warehouse(Results(home).home / "warehouse") for name, home in (attach or {}).items()}
        return _converted(Warehouse(self.home / "warehouse").query(query, attach=others), format)

    def table(self, view: str, *, format: Format = "arrow") -> Any:
        """All rows of a table or view, e.g. `leaderboard`; raises as `sql` does."""
        return self.sql(f'SELECT * FROM "{_identifier(view)}"', format=format)

    def runs(self) -> list[Run]:
        """The runs in it, by name."""
        names = self.sql("SELECT DISTINCT run FROM runs ORDER BY run")["run"].to_pylist()
        return [Run(name, self.home) for name in names]


class Run(Results):
    """One run's results: its newest instance's, or those of an earlier one.

    Args:
        name: The run's name, or `RUN@INSTANCE`.
        home: The folder that holds `warehouse/`, `runs/` and `reports/`.
    """

    def __init__(self, name: str, home: str | Path = ".") -> None:
        super().__init__(home)
        self.name = name

    def table(self, view: str, *, format: Format = "arrow") -> Any:
        """The run's rows of a table or view; raises as `sql` does."""
        from overedit.tasks.warehouse.warehouse import Warehouse

        name = self.name.replace("'", "''")
        sql = f"SELECT * FROM \"{_identifier(view)}\" WHERE run = '{name}'"
        instances = [self.name] if "@" in self.name else []
        return _converted(Warehouse(self.home / "warehouse").query(sql, instances=instances), format)

    def instances(self, *, format: Format = "arrow") -> Any:
        """The run's instances, a row each, the oldest first; `Run(f"{run.name}@{instance}")` has their results."""
        name = self.name.partition("@")[0].replace("'", "''")
        return self.sql(f"SELECT * FROM instances WHERE run = '{name}' ORDER BY instance", format=format)

    @property
    def report(self) -> Path:
        """The report page; of a home in an object store, a local copy of it."""
        from overedit.tasks.storage.working_copy import pull_file

        page = self.home / "reports" / f"{self.name}.html"
        pull_file(page)
        return page

    def __repr__(self) -> str:
        from overedit.tasks.storage.working_copy import shown_path

        return f"Run({self.name!r}, home={shown_path(self.home)!r})"


class MethodInfo(NamedTuple):
    """An editing method."""

    name: str
    """The `method` of its configuration."""
    label: str
    """What plots and tables call it."""
    paper: str
    presets: tuple[str, ...]
    """Models for which settings were published."""


class DatasetInfo(NamedTuple):
    """A dataset that can be read."""

    name: str
    source: str
    """Where its rows come from."""


def run(config: str | Path | Mapping[str, Any], *, wait: bool = False, changed: bool = False, **settings: Any) -> Run:
    """Run a benchmark, or continue it; a run that is complete is left as it is.

    Args:
        config: A YAML file, the name of a configuration that comes with Overedit (`demo`), or a mapping of its keys.
        wait: Where another process works on the run, wait until it has ended.
        changed: Accept that the run's name was used with another configuration: run it as a new instance.
        settings: Keys of the configuration to change, dotted ones as `**{"methods.0.epochs": 10}`.

    Raises:
        ValueError: The configuration does not fit; with the key, the value and what is accepted.
        RuntimeError: A trajectory failed (the others are complete), or another process works on the run.
    """
    from overedit.flows.config.loading import named_content, with_values
    from overedit.flows.launch import prepare_prefect
    from overedit.tasks.runs.completion import completed_run

    content, where = named_content(config)
    content = with_values(content, settings)
    found = completed_run(content)
    if found is None:
        prepare_prefect()
        from overedit.flows.benchmark import run_benchmark

        found = run_benchmark(content, where=where, wait=wait, changed=changed).run
    return Run(found.name, found.home)


def read(home: str | Path = ".") -> Results:
    """Open the results in a folder that holds a `warehouse/`, or in a warehouse itself; raises ValueError if none."""
    return Results(home)


def edit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Iterable[EditRequest | Mapping[str, Any]],
    method: str | Mapping[str, Any] | Any,
    *,
    turn_size: int = 100,
    seed: int = 0,
) -> Edit:
    """Edit a model object: its weights are written. In a `with` block they are taken back at its end, bit for bit.

    Args:
        model: Changed in place; as it was before if this fails.
        tokenizer: Its tokenizer.
        requests: `EditRequest`s, or mappings of their fields (`prompt`, `target_new`, and `subject` where the method
            needs it); at least one, in the order of editing.
        method: A name (`overedit.methods()`), a mapping of settings with the key `method`, or a configuration. What
            is left out takes the published preset for the model's name, where there is one.
        turn_size: The most edits that one call of the method takes.
        seed: Of all that is random.

    Returns:
        The edit: `log`, `parameters`, `undo()`.

    Raises:
        ValueError: A setting, a request or a site that does not fit.
    """
    from overedit.flows.edit import method_config, request_records
    from overedit.tasks.editing_job.in_memory import edit_in_memory

    config = method_config(method, str(model.config.name_or_path))
    return edit_in_memory(model, tokenizer, request_records(requests), config, turn_size=turn_size, seed=seed)


def plot(run: Run, *, protocol: str = "generated") -> Figure:
    """Draw reliability, generalization, locality and capability against edit count, a line for each method.

    Args:
        run: A run that has been measured.
        protocol: How answers are scored: `generated`, `teacher_forced` or `probability`.

    Raises:
        ValueError: The run is not in its warehouse, or was not asked under that protocol.
    """
    from overedit.tasks.report.figures import curve_figure
    from overedit.tasks.warehouse.warehouse import Warehouse

    return curve_figure(Warehouse(run.home / "warehouse"), run.name, protocol=protocol)


def methods() -> list[MethodInfo]:
    """The editing methods, with their papers and the models that have a published preset."""
    from overedit.editing.methods.registry import METHODS

    return [MethodInfo(name, entry.label, entry.paper, tuple(entry.presets)) for name, entry in METHODS.items()]


def datasets() -> list[DatasetInfo]:
    """The datasets that can be read, and where they come from."""
    from overedit.tasks.data.catalog import HUBS
    from overedit.tasks.data.options import DATASETS

    elsewhere = {"pocket": "generated by Overedit", "file": "your own file: dataset.path, dataset.columns"}
    found = []
    for name in DATASETS:
        on_hub = f"{HUBS[name].dataset_id} on the hub, or " if name in HUBS else ""
        found.append(DatasetInfo(name, elsewhere.get(name, f"{on_hub}a file: dataset.path")))
    return found


def _home_of(folder: Path) -> Path:
    from overedit.tasks.storage.working_copy import is_folder, shown_path

    if is_folder(folder / "warehouse"):
        return folder
    if folder.is_dir() and folder.resolve().name == "warehouse":
        return folder.resolve().parent
    raise ValueError(
        f"there is no warehouse in {shown_path(folder.resolve())}; run a benchmark first, or name the folder "
        "that holds warehouse/"
    )


def _identifier(view: str) -> str:
    return view.replace('"', '""')


def _converted(rows: Any, format: str) -> Any:
    if format == "arrow":
        return rows
    if format == "pandas":
        return rows.to_pandas()
    if format == "polars":
        try:
            import polars
        except ImportError as error:
            raise ValueError("format: 'polars' needs the package polars, which is not installed here") from error
        return polars.from_arrow(rows)
    raise ValueError(f"format: {format!r} is unknown; accepted: arrow, pandas, polars")
