"""What a row and each column mean in the tables of checkpoints after one more step, such as `outcomes_after`."""

from __future__ import annotations

from overedit.tasks.warehouse.columns import TABLES_IN_WORDS
from overedit.tasks.warehouse.identity_columns import IDENTITY, Column, Table
from overedit.tasks.warehouse.tables import OF_CHECKPOINTS, after_table

_STEP = Column(
    "what was done to the checkpoint after its edits: quantize_int8, quantize_int4, merge_base:SHARE or finetune:STEPS"
)


def _after(table: str) -> Table:
    whole = TABLES_IN_WORDS[table]
    columns = {name: column for name, column in whole.columns.items() if name not in IDENTITY}
    row = f"{whole.row}, for a checkpoint after one more step (configuration key `after`)"
    return Table(row, IDENTITY | {"after": _STEP} | columns)


TABLES_AFTER_IN_WORDS: dict[str, Table] = {after_table(table): _after(table) for table in OF_CHECKPOINTS}
"""Table name -> what it holds."""
