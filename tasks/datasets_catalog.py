"""The datasets known by name: where each is published, and which column becomes which field of an `EditRequest`.

A dataset is published in several layouts (the original file, the file of a paper's repository); the first layout whose
prompt column a row has is the row's. A dot in a column's name steps into a nested object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Layout(NamedTuple):
    """One way in which a dataset is published: column names for the fields of an `EditRequest`."""

    prompt: str
    target_new: str
    case_id: str | None = None
    """None, or a column that is missing: cases are called by dataset and row number."""
    subject: str | None = "subject"
    target_true: tuple[str, ...] = ()
    """Columns of answers before the edit (a text or a list): the first that differs from `target_new` is taken."""
    rephrase: tuple[str, ...] = ()
    """Columns of a phrasing or a list of phrasings."""
    persona: tuple[str, ...] = ()
    """Columns of the prompt as other people would ask it."""
    text: tuple[str, ...] = ()
    """Columns of beginnings of a longer text about the subject."""
    references: tuple[str, ...] = ()
    """Columns of texts that such a longer text should be like."""
    locality: tuple[tuple[str, str | None], ...] = ()
    """(prompts, answers) columns: a text or a list each; one text as answer serves every prompt beside it. A column may
    also hold whole probes, objects with `prompt` and `answer` (or `ground_truth`)."""
    portability: tuple[tuple[str, str | None], ...] = ()
    """As `locality`."""
    locality_suffix: str = ""
    """Put after a locality prompt that does not end in it."""
    required: tuple[str, ...] = ()
    """Optional columns that a user named: every row must have them."""


class Hub(NamedTuple):
    """Where a dataset hub keeps a dataset."""

    dataset_id: str
    split: str
    files: tuple[str, ...] = ()
    """The files to read where the dataset has several; none: all of it."""


_COMMON = Layout(
    prompt="prompt",
    target_new="target_new",
    case_id="case_id",
    target_true=("ground_truth",),
    rephrase=("rephrase_prompt", "rephrase"),
    locality=(("locality_prompt", "locality_ground_truth"), ("locality", None)),
    portability=(("portability_prompt", "portability_ground_truth"), ("portability", None)),
)
"""The layout that collections of editing datasets share (KnowEdit; the files processed for LocFT-BF)."""

LAYOUTS: Mapping[str, tuple[Layout, ...]] = {
    "zsre": (
        # MEND's file (Mitchell et al. 2022): `alt` is the answer to write, `answers` the true ones, `pred` a model's.
        # `loc` is a lower-case question of Natural Questions, most often without its question mark; UltraEdit and
        # LocFT-BF ask it as published, the prefix "nq question: " included, with "?" after it.
        Layout(
            prompt="src",
            target_new="alt",
            case_id="case_id",
            target_true=("answers", "pred"),
            rephrase=("rephrase",),
            locality=(("loc", "loc_ans"),),
            locality_suffix="?",
        ),
        _COMMON,
    ),
    "counterfact": (
        # ROME's file (Meng et al. 2022): neighbours share the true object, so it answers every one of them.
        Layout(
            prompt="requested_rewrite.prompt",
            target_new="requested_rewrite.target_new.str",
            case_id="case_id",
            subject="requested_rewrite.subject",
            target_true=("requested_rewrite.target_true.str",),
            rephrase=("paraphrase_prompts",),
            text=("generation_prompts",),
            references=("references",),  # its snippets lie in a file of their own; who has put them beside the rows
            locality=(("neighborhood_prompts", "requested_rewrite.target_true.str"),),
        ),
        _COMMON,
    ),
    "wikibigedit": (
        # Thede et al. 2025: `personas` asks the same in another voice, `mhop` needs one more fact.
        Layout(
            prompt="update",
            target_new="ans",
            case_id="case_id",
            rephrase=("rephrase",),
            persona=("personas",),
            locality=(("loc", "loc_ans"),),
            portability=(("mhop", "mhop_ans"),),
        ),
        _COMMON,
    ),
    "ultraeditbench": (
        Layout(
            prompt="prompt",
            target_new="ans",
            case_id="case_id",
            rephrase=("rephrase_prompt",),
            locality=(("loc", "loc_ans"),),
        ),
    ),
}
"""Dataset -> its layouts, the most telling first."""

HUBS: Mapping[str, Hub] = {
    # the test part, without repeated questions, of KnowEdit (Zhang et al. 2024)
    "zsre": Hub("zjunlp/KnowEdit", "train", ("benchmark/ZsRE/ZsRE-test-all.json",)),
    # all 21,919 rows of the original file
    "counterfact": Hub("azhx/counterfact", "train+test"),
    # its eight intervals in order of time
    "wikibigedit": Hub(
        "lukasthede/WikiBigEdit",
        "train",
        tuple(
            f"wiki_big_edit_{interval}.json"
            for interval in (
                "20240201_20240220",
                "20240220_20240301",
                "20240301_20240320",
                "20240320_20240401",
                "20240401_20240501",
                "20240501_20240601",
                "20240601_20240620",
                "20240620_20240701",
            )
        ),
    ),
    "ultraeditbench": Hub("XiaojieGu/UltraEditBench", "train"),
}
"""Dataset -> where it is fetched from when no local file is given."""
