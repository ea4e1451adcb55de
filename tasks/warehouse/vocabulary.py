"""The words that rows use: protocols, kinds of probes, and the metrics of general benchmarks."""

from __future__ import annotations

from typing import Literal

HEADLINES = ("acc_norm", "acc", "exact_match", "em", "pass@1", "f1", "mcc", "bleu", "chrf")
"""Which of a task's metrics is its headline: the first of these that it has.

`acc_norm` before `acc`, since a task that has both is reported by the one that is fair to long answers; a rate of right
answers before an overlap (`f1`) or a correlation (`mcc`); a translation by BLEU, as papers report it. With several
filters over one metric the task's first counts.
"""


RIGHT_OR_WRONG = ("acc_norm", "acc", "exact_match", "em", "pass@1")
"""Headlines by which an item is right or wrong, so that lost and gained ones can be counted."""


PERCENT = ("bleu", "chrf", "ter")
"""Metrics that lm-eval gives in percent, of all items together; here as shares. An item's own value is the metric of it
alone: their mean is not that of all together."""


ProbeKind = Literal["edit", "rephrase", "persona", "locality", "portability", "text"]


ProtocolName = Literal["generated", "teacher_forced", "probability"]


PROTOCOLS = ("generated", "teacher_forced", "probability")
