"""Keyed random numbers: the same key gives the same number, in any order of the calls.

A world of a million facts needs no memory this way: each fact is drawn again when it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import gcd
from typing import TypeVar

Item = TypeVar("Item")


def draw(below: int, *key: int | str) -> int:
    """Draw a number in [0, below) by `key` (64 bits of BLAKE2b; the bias is below 2**-40 for small `below`)."""
    text = "/".join(map(str, key)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") % below


def pick(items: Sequence[Item], *key: int | str) -> Item:
    """Draw one of `items`, determined by `key`."""
    return items[draw(len(items), *key)]


def scrambled(index: int, size: int, *key: int | str) -> int:
    """Permute [0, size) by `key`: index i -> (a i + b) mod size, with a and size coprime."""
    step = size // 3 + draw(max(1, size // 3), *key, "step")
    while gcd(step, size) != 1:
        step += 1
    return (step * index + draw(size, *key, "offset")) % size
