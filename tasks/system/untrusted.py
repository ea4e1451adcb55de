"""Reading files of unknown origin, and showing their values and errors safely in a message."""

from __future__ import annotations

import re
import reprlib
import stat
from pathlib import Path
from typing import Any

_NOT_PLAIN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


def read_plain_file(path: Path, *, what: str, most_bytes: int) -> bytes:
    """Read an ordinary file; nothing else is opened, as a pipe may never end.

    Args:
        path: The file; a symbolic link to one counts as one.
        what: What a message calls it, e.g. "dataset file".
        most_bytes: The largest file that is read.

    Raises:
        ValueError: It is missing, not an ordinary file, too large, or not readable.
    """
    name = f"{what} {printable(str(path))!s}"
    try:
        found = path.stat()
        kind = next((kind for is_kind, kind in _KINDS.items() if is_kind(found.st_mode)), None)
        if kind is not None:
            raise ValueError(f"{name} is {kind}; name a file")
        if found.st_size > most_bytes:
            raise ValueError(f"{name} has {found.st_size:,} bytes; at most {most_bytes:,} are read")
        return path.read_bytes()
    except FileNotFoundError as error:
        missing = "is a link that leads nowhere" if path.is_symlink() else "does not exist"
        raise ValueError(f"{name} {missing}") from error
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror or error}") from error


def shown_value(value: Any, length: int = 60) -> str:
    """Show any value, however deeply nested, on one line of at most `length` characters."""
    short = reprlib.Repr()
    short.maxlevel = 3
    short.maxstring = short.maxother = short.maxlong = length
    try:
        shown = short.repr(value)
    except ValueError:  # Python refuses to print integers of more than 4,300 digits
        shown = f"a number of {value.bit_length():,} bits" if isinstance(value, int) else "a very large number"
    return printable(shorten(shown, length))


def printable(text: str) -> str:
    """Escape a text's control characters (except tab and line feed), so that it is safe to print on a terminal."""
    return _NOT_PLAIN.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def without_credentials(text: str) -> str:
    """Replace the user and the password of URLs in a text, `s3://key:secret@bucket`, by three dots."""
    return re.sub(r"(?<=:/)(/?)[^/\s'\"]*@", r"\1...@", text)


def shorten(text: str, length: int = 60) -> str:
    """Cut a text to at most `length` characters; a text that is cut ends in `...`."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def error_message(error: BaseException, length: int = 200) -> str:
    """An error's message on one line: its first `length` characters, with single spaces for all whitespace."""
    return " ".join(str(error).split())[:length]


def one_line(error: BaseException, length: int = 500) -> str:
    """An error's type and message on one line of at most `length` characters, e.g. for a table's cell."""
    return f"{type(error).__name__}: {error_message(error, length)}"[:length]
