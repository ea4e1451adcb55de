"""The words that rows use: protocols, kinds of probes, and the metrics of general benchmarks."""

from __future__ import annotations

from typing import Literal, get_args

HEADLINES = ("acc_norm", "acc", "exact_match", "em", "pass@1", "f1", "mcc", "bleu", "chrf")
"""A task's headline metric is the first of these that it has.

`acc_norm` comes before `acc`, because it is fair to long answers; a rate of right answers before an overlap (`f1`) or a
correlation (`mcc`); and BLEU before chrF, as papers report translations. If a metric has several filters, the first one
of the task counts.
"""

RIGHT_OR_WRONG = ("acc_norm", "acc", "exact_match", "em", "pass@1")
"""Headline metrics by which an item is either right or wrong, so that lost and gained items can be counted."""

PERCENT = ("bleu", "chrf", "ter")
"""Metrics that lm-eval computes over all items together, in percent; stored as shares. The mean of the items'
own values is not the metric of all items together."""

ProbeKind = Literal["edit", "rephrase", "persona", "locality", "portability", "text"]
"""The kinds of prompts of a case."""

ProtocolName = Literal["generated", "teacher_forced", "probability"]
"""The ways of scoring an answer."""

PROTOCOLS: tuple[ProtocolName, ...] = get_args(ProtocolName)
"""All protocols; the first one is the default."""
