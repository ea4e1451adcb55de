"""What a model in memory scores after edits: rows of the table `site_scores`, one per measure and item."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from overedit.editing.requests import EditRequest
from overedit.tasks.engine.base import Engine
from overedit.tasks.evaluation.capability.scoring import measure_capability
from overedit.tasks.evaluation.capability.task_loading import TaskLoader
from overedit.tasks.evaluation.options import MeasureOptions
from overedit.tasks.evaluation.outcomes import PreEdit
from overedit.tasks.evaluation.perplexity import measure_perplexity
from overedit.tasks.evaluation.probing import evaluate_checkpoint

Row = dict[str, Any]

_MEASURES = {
    "edit": ("reliability", "score"),
    "rephrase": ("generalization", "score"),
    "persona": ("persona", "score"),
    "locality": ("locality", "agreement"),
    "portability": ("portability", "score"),
}
"""Probe -> the measure, and the column of `outcomes` that it is the mean of."""


class Pristine(NamedTuple):
    """The unedited model's scores, and its answers."""

    rows: list[Row]
    answers: PreEdit


class Meter(NamedTuple):
    """Measures the weights that an engine holds at the time of the call."""

    engine: Engine
    requests: Sequence[EditRequest]
    """All of them have been edited, or none."""
    options: MeasureOptions
    texts: Sequence[str]
    """On which perplexity is measured; none where it is not."""
    loader: TaskLoader
    """Keeps the general benchmarks' task objects."""

    def pristine(self) -> Pristine:
        """Measure the unedited model."""
        count = len(self.requests)
        asked = evaluate_checkpoint(self.engine, self.requests, 0, self.options.evaluation, edit_counts=(count,))
        return Pristine([*edit_rows(asked.rows), *self._general()], PreEdit.of(asked.rows))

    def edited(self, pristine: PreEdit) -> list[Row]:
        """Measure the model with all requests edited.

        Args:
            pristine: The unedited model's answers, for locality.
        """
        begun = time.perf_counter()
        count = len(self.requests)
        asked = evaluate_checkpoint(self.engine, self.requests, count, self.options.evaluation, pre_edit=pristine)
        middle = time.perf_counter()
        general = self._general()
        costs = {"answers": middle - begun, "general ability": time.perf_counter() - middle}
        return [*edit_rows(asked.rows), *general, *(seconds_row(what, seconds) for what, seconds in costs.items())]

    def _general(self) -> list[Row]:
        rows = []
        if self.texts:
            found = measure_perplexity(self.engine, self.texts, str(self.options.perplexity.corpus))
            rows.append(perplexity_row(found))
        if self.options.capability.asked and self.options.capability.when != "never":
            rows += capability_rows(measure_capability(self.engine, self.options.capability, loader=self.loader).scores)
        return rows


def edit_rows(outcomes: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Average rows of the table `outcomes` by measure, protocol and case; what could not be scored is left out."""
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in outcomes:
        measure, column = _MEASURES.get(row["probe"], ("", ""))
        if measure and row[column] is not None:
            found[measure, row["protocol"], row["case_id"]].append(row[column])
    return [
        {"measure": measure, "protocol": protocol, "item": case, "value": fmean(values), "n": len(values)}
        for (measure, protocol, case), values in found.items()
    ]


def capability_rows(scores: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The headline scores of the benchmarks that count by themselves, from rows of the table `capability`."""
    return [
        {
            "measure": "capability",
            "item": row["task"],
            "value": _finite(row["value"]),
            "n": row["num_samples"],
            "stderr": _finite(row["stderr"]),
            "chance": row["chance"],
        }
        for row in scores
        if row["main"] and row["part_of"] is None
    ]


def perplexity_row(texts: Sequence[Mapping[str, Any]]) -> Row:
    """The perplexity of all texts of a corpus together, from rows of the table `perplexity`; it may be infinite."""
    num_tokens = sum(row["num_tokens"] for row in texts)
    mean = sum(row["nll"] for row in texts) / num_tokens
    value = math.exp(mean) if mean < _LARGEST_EXPONENT else math.inf  # a NaN is not less
    return {"measure": "perplexity", "item": texts[0]["corpus"], "value": value, "n": num_tokens}


def seconds_row(what: str, seconds: float) -> Row:
    """The time that a stage took."""
    return {"measure": "seconds", "item": what, "value": seconds, "n": 1}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


_LARGEST_EXPONENT = 709.0  # exp of it is still a float
