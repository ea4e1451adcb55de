"""The benchmark suites of published evaluations, by name (`capability.suite`)."""

from __future__ import annotations

from typing import NamedTuple

from rich.console import Group
from rich.table import Table


class SuiteTask(NamedTuple):
    """One benchmark of a suite."""

    name: str
    """The lm-eval task, group or tag."""
    shots: int | None
    """Worked examples before each question; None is the task's own number (0 if it has none)."""
    metric: str
    """The headline metric, by lm-eval's name."""
    comment: str = ""
    """What the paper does not state, and what was chosen."""


class Suite(NamedTuple):
    """The benchmarks of a paper."""

    paper: str
    tasks: tuple[SuiteTask, ...]
    limit: int | None
    """The most items of each task (of each member of a group), from the first on; None is all."""
    comment: str


SUITES = {
    "locft": Suite(
        paper="Fine-tuning Done Right in Model Editing, arXiv 2509.22072",
        tasks=(
            SuiteTask("mmlu", None, "acc", "by likelihood of A to D; 0 worked examples"),
            SuiteTask("nq_open", None, "exact_match", "closed book; 0 worked examples"),
            SuiteTask("sst2", None, "acc", "by likelihood; 0 worked examples"),
            SuiteTask("wmt16-de-en", None, "bleu", "the metric is not stated: corpus BLEU / 100; 0 worked examples"),
            SuiteTask("gsm8k", None, "exact_match", "the answer after ####; lm-eval's own 5 worked examples"),
        ),
        limit=500,
        comment="Capability is the mean of the five. Task variants and worked examples are not stated: lm-eval's own "
        "are taken. 500 (in MMLU of a subject) is the likely reading: the 28,500 MMLU items of the text "
        "are 500 x 57, and there are only 14,042.",
    ),
    "should-we-edit": Suite(
        paper="Should We Really Edit Language Models?, arXiv 2410.18785",
        tasks=(
            SuiteTask("mmlu", 5, "acc", "generated in the paper; here by likelihood of A to D"),
            SuiteTask("bbh", 3, "exact_match", "worked examples with reasoning; bbh_fewshot is without"),
            SuiteTask("gsm8k", 8, "exact_match", "the answer after ####"),
            SuiteTask("commonsense_qa", 7, "acc", "generated in the paper; here by likelihood of A to E"),
            SuiteTask("triviaqa", 0, "exact_match", "closed book"),
            SuiteTask("truthfulqa_mc1", None, "acc", "MC1 or MC2 is not stated; six examples are in the prompt"),
            SuiteTask("toxigen", 0, "acc_norm", "acc or acc_norm is not stated"),
        ),
        limit=None,
        comment="MMLU and CommonsenseQA cost a generation an item in the paper, and one token's likelihood here.",
    ),
    "quick": Suite(
        paper="none: Overedit's own",
        tasks=(
            SuiteTask("arc_easy", 0, "acc_norm", "school science"),
            SuiteTask("hellaswag", 0, "acc_norm", "which ending follows"),
            SuiteTask("piqa", 0, "acc_norm", "everyday physics"),
            SuiteTask("winogrande", 0, "acc", "what a pronoun stands for"),
            SuiteTask("sst2", 0, "acc", "sentiment"),
        ),
        limit=200,
        comment="Five kinds of ability by likelihood alone: 2,800 short scores and nothing generated. The same 1,000 "
        "items are asked of every checkpoint, so that losses are counted item by item.",
    ),
}
"""Suite -> its benchmarks; the names are those of lm-eval 0.4.13."""


def suites_shown() -> Group:
    """Tables of the suites for the terminal: papers, benchmarks, and the choices where a paper does not state one."""
    return Group(*(_table(name, suite) for name, suite in SUITES.items()))


def _table(name: str, suite: Suite) -> Table:
    items = "All items." if suite.limit is None else f"{suite.limit} items a task."
    table = Table(
        "task",
        "worked examples",
        "metric",
        "notes",
        title=f"{name} ({suite.paper})",
        caption=f"{items} {suite.comment}",
    )
    for task in suite.tasks:
        table.add_row(task.name, "its own" if task.shots is None else str(task.shots), task.metric, task.comment)
    return table
