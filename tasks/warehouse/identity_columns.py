"""The records that describe tables and columns in words, and the columns of identity, which many tables have."""

from __future__ import annotations

from typing import NamedTuple


class Column(NamedTuple):
    """A column in words."""

    meaning: str
    unit: str = ""
    """Empty for texts, identifiers and pure numbers."""


class Table(NamedTuple):
    """A table in words."""

    row: str
    """What one row stands for."""
    columns: dict[str, Column]


SHARE = "share, 0 to 1"

IDENTITY = {
    "run": Column("the run's name"),
    "trajectory": Column("the method's configuration, as the name of a folder; `base` is the pristine model"),
    "model": Column("the model's folder or hub name"),
    "method": Column("the editing method; `none` for the pristine model"),
    "dataset": Column("the dataset of the edit requests"),
    "order_seed": Column("seed of the order of the edits"),
    "edit_count": Column("edits applied to the model; 0 is the pristine model", "edits"),
}

LABEL = Column("the method's name in plots and tables, e.g. LocFT-BF")
