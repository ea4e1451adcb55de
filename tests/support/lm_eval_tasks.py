"""Small lm-eval tasks over rows of a test's own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

CHOICE = """
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{prompt}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
"""Of rows with `prompt`, `choices` and `label`."""
GENERATION = """
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
output_type: generate_until
test_split: test
doc_to_text: "{{prompt}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["."], max_gen_toks: 8, do_sample: false}
filter_list:
  - {name: answer, filter: [{function: remove_whitespace}, {function: take_first}]}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
"""Of rows with `prompt` and `answer`."""


def write_tasks(folder: Path, rows: Iterable[Mapping[str, Any]], **tasks: str) -> None:
    """Write the rows, and a task file for each name."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "items.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in tasks.items():
        (folder / f"{name}.yaml").write_text(f"task: {name}{text.replace('DATA', str(data))}")
