"""What the commands that run a flow share: their options, and how they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

if TYPE_CHECKING:
    from prefect import Flow

    from overedit.tasks.runs.run import Run

Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the configuration.")
]

Changed = Annotated[
    bool,
    typer.Option(
        "--changed", help="The configuration of this name has changed: run it as a new instance; earlier rows stay."
    ),
]


RunHome = Annotated[
    str | None,
    typer.Option("--home", help="The folder of the results, or its URL, e.g. s3://bucket/results; as --set home=."),
]

Wait = Annotated[bool, typer.Option("--wait", help="Wait for another process that works on this run.")]


def given(config: str, settings: list[str] | None, home: str | None) -> tuple[dict[str, Any], str]:
    """The content of a command's configuration with `--set` and `--home` applied, and its name for error messages.

    Raises:
        ValueError: There is no such configuration, it cannot be read, or a setting is malformed.
    """
    from overedit.flows.config.loading import named_content, with_settings

    content, where = named_content(config)
    return with_settings(content, settings or []) | ({"home": home} if home else {}), where


class Planned(Protocol):
    """A checked plan of any flow."""

    @property
    def config(self) -> Any:
        """The configuration."""

    @property
    def run(self) -> Run:
        """The run."""


def run_planned(flow: Flow[..., str], plan: Planned, *, wait: bool) -> tuple[str, bool]:
    """Run the flow of a checked plan; a run that another process works on is refused before a server starts.

    Returns:
        The flow's result, and whether Prefect's server was lost.
    """
    from overedit.flows.launch import execute
    from overedit.tasks.runs.run_lock import check_run_is_free

    if not wait:
        check_run_is_free(plan.run.folder)
    with stop_ends_with_130():
        return execute(flow, plan.config, wait=wait)


@contextmanager
def stop_ends_with_130() -> Iterator[None]:
    """End with exit code 130 when the work in the block was stopped on request."""
    try:
        yield
    except KeyboardInterrupt as stop:
        print(f"overedit: {stop or 'interrupted'}; the same command continues", file=sys.stderr)
        sys.exit(130)


def leave(server_is_lost: bool) -> None:
    """Exit at once if the server is lost: Prefect would retry the report of every task for seconds."""
    if server_is_lost:
        sys.stdout.flush()
        os._exit(0)
