"""Runs the `overedit sql` examples of a page and pastes the output below each.

    python -m tests.docs.examples README.md docs/sql.md [--home FOLDER]      (`make examples`, after `make demo`)

An example is a `bash` block with one command, followed by a `text` block with its output.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

EXAMPLE = re.compile(r"```bash\n(overedit sql .*?)\n```\n\n```text\n(.*?)```", re.DOTALL)
"""Groups: the command, its output."""
COLUMNS = 118
"""Width of the output, so that it fits the page."""


def examples(page: Path) -> list[tuple[str, str]]:
    """(command, output) of each example on a page."""
    return [(command, output) for command, output in EXAMPLE.findall(page.read_text())]


def output_of(command: str, home: Path) -> str:
    """The output of an `overedit` command.

    Args:
        command: As typed in a shell.
        home: The folder that holds `warehouse/`.

    Raises:
        RuntimeError: The command failed.
    """
    arguments = [*shlex.split(command)[1:], "--home", str(home)]
    program = [sys.executable, "-c", "from overedit.flows.cli.main import main; main()"]
    environment = os.environ | {"COLUMNS": str(COLUMNS)}
    done = subprocess.run(
        [*program, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        raise RuntimeError(f"{command}\nended with exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def with_outputs(text: str, home: Path) -> str:
    """A page's text with the output of every example renewed."""

    def renewed(found: re.Match[str]) -> str:
        return f"```bash\n{found[1]}\n```\n\n```text\n{output_of(found[1], home)}```"

    return EXAMPLE.sub(renewed, text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run the examples of pages and paste their output.")
    parser.add_argument("pages", type=Path, nargs="+")
    parser.add_argument("--home", type=Path, default=Path(), help="the folder that holds warehouse/")
    arguments = parser.parse_args()
    for page in arguments.pages:
        page.write_text(with_outputs(page.read_text(), arguments.home))
        print(f"{page}: {len(examples(page))} examples")
