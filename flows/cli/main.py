"""The command line: `overedit VERB`. Exit codes: 0 done, 1 a run failed, 2 bad input, 130 stopped on request."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Column, Table

import overedit
from overedit.editing.storage.disk_space import NoSpaceError
from overedit.flows.cli.locate import locate
from overedit.flows.cli.operate import deploy, ui, worker
from overedit.flows.cli.plan import plan
from overedit.flows.cli.results import Home, accept, compare, history, local_folder, publish, report, site, sql
from overedit.flows.cli.running import Changed, RunHome, Settings, Wait, given, leave, run_planned, stop_ends_with_130
from overedit.flows.cli.tune import presets, tune
from overedit.flows.launch import prepare_logging, prepare_prefect
from overedit.tasks.system.untrusted import printable

app = typer.Typer(
    name="overedit",
    help="How many edits can this model take, with this method, before it breaks?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ROOM = "overedit status shows what uses the disk, overedit prune removes weights; or set another home"


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="A YAML file; see deployments/benchmarks/.")],
    settings: Settings = None,
    wait: Wait = False,
    changed: Changed = False,
    home: RunHome = None,
) -> None:
    """Run a benchmark, or continue it; a complete run is not run again."""
    _benchmark(str(config), settings, wait=wait, changed=changed, home=home)


@app.command()
def demo(settings: Settings = None, changed: Changed = False, home: RunHome = None) -> None:
    """Run the benchmark on the pocket world: a small model that knows its facts, edited until it breaks."""
    _benchmark("demo", settings, changed=changed, home=home)


@app.command()
def scan(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped one, e.g. scan-pocket.")],
    settings: Settings = None,
    wait: Wait = False,
    home: RunHome = None,
) -> None:
    """Edit with every request alone, find those that break the model, and save them as a dataset."""
    prepare_prefect()
    from overedit.flows.config.loading import validated
    from overedit.flows.config.models import ScanConfig
    from overedit.flows.scan import flow_of, make_scan_plan
    from overedit.tasks.system.progress import shown

    content, where = given(config, settings, home)
    plan = make_scan_plan(validated(ScanConfig, content, where=where), show=shown)
    lines, server_is_lost = run_planned(flow_of(plan), plan, wait=wait)
    print(lines)
    leave(server_is_lost)


app.command()(plan)
app.command()(tune)
app.command()(locate)


@app.command()
def edit(
    model: Annotated[str, typer.Option(help="A model folder, a hub name, or pocket.")],
    method: Annotated[str, typer.Option(help="One of: overedit methods.")],
    requests: Annotated[Path, typer.Option(help="A file of edit requests (JSON, JSONL, Parquet, CSV).")],
    out: Annotated[
        Path,
        typer.Option(help="The folder that receives weights.safetensors and checkpoint.json.", callback=local_folder),
    ],
    dataset: Annotated[str, typer.Option(help="How to read the file: one of overedit datasets, or file.")] = "file",
    settings: Settings = None,
) -> None:
    """Run one editing job alone: no server, no engine, no evaluation."""
    from overedit.flows.edit import edit_file

    checkpoint = edit_file(model, method, requests, out, dataset=dataset, settings=settings or [])
    record = checkpoint.record
    print(f"{record.edit_count} edits, {checkpoint.costs.seconds:.1f} s, {len(record.tensors)} edited tensors in {out}")


@app.command()
def export(
    checkpoint: Annotated[
        str, typer.Argument(help="A checkpoint folder or its URL (holds weights.safetensors, checkpoint.json).")
    ],
    out: Annotated[Path, typer.Argument(help="The model folder to write.", callback=local_folder)],
    model: Annotated[str | None, typer.Option(help="The base model, where it is not where it was.")] = None,
) -> None:
    """Turn base model and checkpoint into an ordinary Hugging Face model folder."""
    from overedit.tasks.models.export import export_checkpoint
    from overedit.tasks.storage.outline import downloaded
    from overedit.tasks.storage.working_copy import local_home

    with downloaded(local_home(checkpoint, "checkpoint")) as folder:
        export_checkpoint(folder, out, model=model)
    print(f"wrote {out}")


app.command()(sql)
app.command()(report)
app.command()(compare)
app.command()(history)
app.command()(accept)
app.command()(publish)
app.command()(site)


@app.command()
def methods() -> None:
    """List the methods, with their papers and the models that have a published preset."""
    table = Table("method", "name", Column("paper", overflow="fold"), Column("presets for", no_wrap=True))
    for method in overedit.methods():
        table.add_row(method.name, method.label, method.paper, "\n".join(method.presets) or "-")
    Console().print(table)


@app.command()
def datasets() -> None:
    """List the datasets that can be read, and where they come from."""
    table = Table("dataset", "from")
    for dataset in overedit.datasets():
        table.add_row(dataset.name, dataset.source)
    Console().print(table)


app.command()(presets)


@app.command()
def suites() -> None:
    """List the sets of general benchmarks that published evaluations use (`capability.suite`)."""
    from overedit.tasks.evaluation.capability.suites import suites_shown

    Console().print(suites_shown())


@app.command()
def status(home: Home = Path()) -> None:
    """List the runs, the status of each trajectory, and the disk space it uses."""
    from overedit.tasks.runs.status import status_table
    from overedit.tasks.storage.working_copy import is_folder, shown_path

    if not is_folder(home):
        raise ValueError(f"home: there is no folder {shown_path(home)}")
    Console().print(status_table(home))


@app.command()
def verify(
    what: Annotated[
        str | None, typer.Argument(metavar="[RUN|FOLDER]", help="A run, or a folder or URL of checkpoints.")
    ] = None,
    home: Home = Path(),
) -> None:
    """Check checkpoints against their checksums and read the whole warehouse; exit code 1 if anything is damaged."""
    from overedit.tasks.runs.verify import verify, verify_table
    from overedit.tasks.storage.working_copy import shown_path

    parts = verify(home, what)
    Console().print(verify_table(parts))
    damages = [damage for part in parts for damage in part.damages]
    for path, reason in damages:
        print(printable(f"damaged: {shown_path(path)}: {reason}"))
    if damages:
        raise typer.Exit(1)
    print("everything is as it was written")


@app.command()
def prune(
    name: Annotated[str, typer.Argument(help="A run's name.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    instances: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Remove rows instead: of all but the newest N instances and the baseline."
        ),
    ] = None,
    home: Home = Path(),
) -> None:
    """Remove the weights of a run's checkpoints, but the newest and those around the collapse; every row stays."""
    from overedit.tasks.runs.prune import prune_run, prune_table
    from overedit.tasks.runs.prune_instances import prune_instances

    if instances is not None:
        pruned = prune_instances(home, name, keep=instances, dry_run=dry_run)
        would = "would remove" if dry_run else "removed"
        print(
            f"{would} the rows of {len(pruned.instances):,} instances: {pruned.num_files:,} files, "
            f"{pruned.num_bytes:,} bytes"
        )
        return
    prunings = prune_run(home, name, dry_run=dry_run)
    Console().print(prune_table(prunings))
    num_bytes = sum(pruning.num_bytes for pruning in prunings)
    print(f"{'would free' if dry_run else 'freed'} {num_bytes:,} bytes")


@app.command()
def unlock(name: Annotated[str, typer.Argument(help="A run's name.")], home: Home = Path()) -> None:
    """Remove the lock that a process has left in an object store when it was killed on another machine."""
    from overedit.tasks.runs.run import check_name
    from overedit.tasks.runs.run_lock import unlock

    check_name(name)
    print(f"removed the lock of {unlock(home, name)}")


app.command()(deploy)
app.command()(worker)
app.command()(ui)


def main() -> None:
    """Run the command line; errors that the user can mend are one message and exit code 2."""
    prepare_logging()
    try:
        app(standalone_mode=True)
    except ValueError as error:
        _end(str(error), 2)
    except NoSpaceError as error:
        _end(f"{error}; make room ({ROOM}), and the same command continues", 1)
    except (RuntimeError, OSError) as error:
        _end(str(error), 1)
    except _store_errors() as error:
        _end(f"the object store: {error}", 1)
    except MemoryError as error:
        _end(f"out of memory {error}".strip(), 1)


def _store_errors() -> tuple[type[BaseException], ...]:
    from overedit.tasks.storage.stores import foreign_errors

    return foreign_errors()


def _end(message: str, code: int) -> NoReturn:
    """Say why it ends; what a hostile file put into the message does nothing to the terminal."""
    print(f"overedit: {printable(message)}", file=sys.stderr)
    sys.exit(code)


def _benchmark(
    config: str, settings: list[str] | None, *, wait: bool = False, changed: bool = False, home: str | None = None
) -> None:
    from overedit.tasks.report.summary import summary_table
    from overedit.tasks.runs.completion import completed_run
    from overedit.tasks.storage.working_copy import shown_path

    content, where = given(config, settings, home)
    run, server_is_lost = completed_run(content), False
    if run is None:
        prepare_prefect()
        from overedit.flows.benchmark import run_benchmark

        with stop_ends_with_130():
            run, server_is_lost = run_benchmark(
                content, where=where, wait=wait, changed=changed, requested_by="command line"
            )
    Console().print(summary_table(run.warehouse, run.name))
    print(f"report: {shown_path(run.report)}")
    leave(server_is_lost)
