"""What a fuzz test is given."""

from collections.abc import Callable
from typing import Any

Outcome = Callable[[Callable[[], Any], str], Any]
"""(call, words of the error that is accepted) -> the call's result, None where it was refused."""
