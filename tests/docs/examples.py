"""The `overedit sql` examples of a page: each is run, and what it prints is put beneath it.

    python -m tests.examples README.md [--home FOLDER]      (`make examples`, after `make demo`)

An example is a `bash` block of one command, followed by a `text` block with what it printed.
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
"""Groups: the command, what it printed."""
COLUMNS = 118
"""As wide as a page of the repository is shown."""


def examples(page: Path) -> list[tuple[str, str]]:
    """(command, output shown) of each example of a page."""
    return [(command, output) for command, output in EXAMPLE.findall(page.read_text())]


def output_of(command: str, home: Path) -> str:
    """What a command of the command line prints, asked of the warehouse in a home."""
    arguments = [*shlex.split(command)[1:], "--home", str(home)]
    program = [sys.executable, "-c", "from overedit.flows.cli.main import main; main()"]
    surroundings = os.environ | {"COLUMNS": str(COLUMNS)}
    done = subprocess.run(
        [*program, *arguments], env=surroundings, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        raise RuntimeError(f"{command}\nended with exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def with_outputs(text: str, home: Path) -> str:
    """A page's text with every example's output made anew."""

    def made_anew(found: re.Match[str]) -> str:
        return f"```bash\n{found[1]}\n```\n\n```text\n{output_of(found[1], home)}```"

    return EXAMPLE.sub(made_anew, text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run a page's examples and put what they print beneath them.")
    parser.add_argument("pages", type=Path, nargs="+")
    parser.add_argument("--home", type=Path, default=Path(), help="where the warehouse is")
    arguments = parser.parse_args()
    for page in arguments.pages:
        page.write_text(with_outputs(page.read_text(), arguments.home))
        print(f"{page}: {len(examples(page))} examples")
