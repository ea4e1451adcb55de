"""The `overedit` commands that pages and unit files show, held against the real command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import typer

from overedit.flows.cli.main import app

_ENDS = {"|", "||", "&&", ";", "&", ">", ">>", "2>", "<"}


def commands_in_blocks(page: str) -> list[str]:
    """The commands of a Markdown page's `bash` blocks, continued lines joined."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def overedit_calls(command: str) -> Iterator[list[str]]:
    """The words after `overedit` of each call in a shell command, e.g. `["ui", "--home", "X"]`."""
    words = [*shlex.split(command, comments=True), ";"]
    while words:
        end = next(index for index, word in enumerate(words) if word in _ENDS)
        first, *call = [word for word in words[:end] if not re.match(r"[A-Z_]+=", word)] or [""]
        if first.rpartition("/")[2] == "overedit":
            yield call
        words = words[end + 1 :]


def mistake(call: list[str]) -> str | None:
    """What the command line would refuse in a call: an unknown command or option, an argument too many or too few."""
    group = typer.main.get_command(app)
    command = group.commands.get(call[0])  # type: ignore[attr-defined]
    if command is None:
        return f"overedit {call[0]}: there is no such command"
    options = {name: each for each in command.params for name in each.opts if name.startswith("-")}
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    given, words = 0, iter(call[1:])
    for word in words:
        name, equals, _ = word.partition("=")
        if not name.startswith("-"):
            given += 1
        elif name == "--help":
            return None
        elif name not in options:
            return f"overedit {call[0]}: there is no option {name}"
        elif not equals and not getattr(options[name], "is_flag", False) and next(words, None) is None:
            return f"overedit {call[0]}: {name} needs a value"
    if given < sum(each.required for each in arguments) or given > len(arguments):
        return f"overedit {call[0]}: {given} arguments"
    return None
