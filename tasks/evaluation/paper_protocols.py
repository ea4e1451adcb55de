"""Papers' evaluation protocols: the configuration that each needs, and the numbers that it reports.

Papers disagree because they measure differently. A preset is one paper's protocol; a run that stores enough is scored
under several of them from the same rows (`views/preset_scores.sql`), so that only the protocol differs. What each
counts as right, and where it still differs from the paper's own code, is in `docs/protocols.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Paper(NamedTuple):
    """A paper that describes a protocol."""

    title: str
    arxiv: str


class Measure(NamedTuple):
    """One number of a preset; `views/preset_measures.sql` computes it under the same name."""

    name: str
    definition: str


class Preset(NamedTuple):
    """A paper's protocol."""

    name: str
    label: str
    papers: tuple[Paper, ...]
    asks: Mapping[str, Any]
    """The keys of a run's configuration that it sets, nested as there."""
    measures: tuple[Measure, ...]
    needs: Mapping[str, str] = {}
    """Keys that the user must set, and what they must be."""


_TOKENS = "teacher-forced share of the target's tokens that are the model's own choice"
_TEACHER_FORCED = {
    "protocols": ["teacher_forced"],
    "probes": ["edit", "rephrase", "locality"],
    "max_rephrase": 1,
    "max_locality": 1,
}
_WORDS = "the greedy text up to the first '.' or line end is the target, after SQuAD normalization"

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="wild",
            label="WILD",
            papers=(
                Paper("The Mirage of Model Editing: Revisiting Evaluation in the Wild", "2502.11177"),
                Paper("Fine-tuning Done Right in Model Editing", "2509.22072"),
            ),
            asks={
                "evaluation": {
                    "protocols": ["generated"],
                    "probes": ["edit", "rephrase"],
                    "max_tokens": 32,
                    "stop": [".", "\n"],
                    "max_rephrase": 1,
                }
            },
            measures=(
                Measure("reliability", f"edit prompt: {_WORDS}"),
                Measure("generalization", f"first rephrase: {_WORDS}"),
            ),
        ),
        Preset(
            name="ultraedit",
            label="UltraEdit",
            papers=(
                Paper(
                    "UltraEdit: Training-, Subject-, and Memory-Free Lifelong Editing in Language Models", "2505.14679"
                ),
                Paper("AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models", "2410.02355"),
            ),
            asks={"evaluation": _TEACHER_FORCED},
            measures=(
                Measure("efficacy", f"edit prompt: {_TOKENS}"),
                Measure("generalization", f"first rephrase: {_TOKENS}"),
                Measure("specificity", f"first locality prompt, whose target is the gold answer: {_TOKENS}"),
            ),
        ),
        Preset(
            name="counterfact",
            label="CounterFact",
            papers=(
                Paper("Locating and Editing Factual Associations in GPT", "2202.05262"),
                Paper("Mass-Editing Memory in a Transformer", "2210.07229"),
                Paper("A Unified Framework for Model Editing", "2403.14236"),
            ),
            asks={
                "evaluation": {
                    "protocols": ["generated", "probability"],
                    "probes": ["edit", "rephrase", "locality", "text"],
                    "max_rephrase": 2,
                    "max_locality": 10,
                    "max_text": 10,
                    "text_tokens": 100,
                }
            },
            measures=(
                Measure("efficacy_score", "edit prompt: the new answer has the lower mean NLL per token"),
                Measure("efficacy_magnitude", "edit prompt: e^-NLL of the new answer less that of the true one"),
                Measure("paraphrase_score", "rephrases: as efficacy_score"),
                Measure("paraphrase_magnitude", "rephrases: as efficacy_magnitude"),
                Measure("neighbourhood_score", "neighbours: the true answer has the lower mean NLL per token"),
                Measure("neighbourhood_magnitude", "neighbours: e^-NLL of the true answer less that of the new one"),
                Measure("score", "harmonic mean of the three scores"),
                Measure("ngram_entropy", "longer texts: (2/3 bigram + 4/3 trigram entropy) / 2, in bits"),
                Measure("reference_similarity", "longer texts: TF-IDF cosine similarity with the references"),
            ),
        ),
        Preset(
            name="wise",
            label="WISE",
            papers=(
                Paper(
                    "WISE: Rethinking the Knowledge Memory for Lifelong Model Editing of Large Language Models",
                    "2405.14768",
                ),
            ),
            asks={"edit_counts": [1, 10, 100, 1000], "evaluation": _TEACHER_FORCED},
            measures=(
                Measure("reliability", f"edit prompt: {_TOKENS}"),
                Measure("generalization", f"first rephrase: {_TOKENS}"),
                Measure("locality", "first locality prompt: teacher-forced share of tokens as before editing"),
                Measure("average", "mean of the three"),
            ),
        ),
        Preset(
            name="should-we-edit",
            label="Should we edit?",
            papers=(
                Paper(
                    "Should We Really Edit Language Models? On the Evaluation of Edited Language Models", "2410.18785"
                ),
            ),
            asks={
                "edit_counts": [1, 5, 10, 20, 30, 50, 100, 500, 1000],
                "capability": {"suite": "should-we-edit"},
            },
            measures=(
                Measure("mean", "mean of the tasks' headline metrics; each task is a measure of its name beside it"),
            ),
        ),
        Preset(
            name="butterfly",
            label="Butterfly effect",
            papers=(
                Paper(
                    "The Butterfly Effect of Model Editing: Few Edits Can Trigger Large Language Models Collapse",
                    "2402.09656",
                ),
            ),
            asks={"perplexity": {"limit": None}},
            needs={"perplexity.corpus": "the sentences of ME-PPL, a local file"},
            measures=(
                Measure("perplexity", "mean over sentences of exp(mean token NLL)"),
                Measure("perplexity_ratio", "the same over the pristine model's"),
            ),
        ),
    )
}
"""Name -> preset."""
