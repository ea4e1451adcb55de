"""The named datasets: where each is published, and which column becomes which field of an `EditRequest`.

A dataset is published in several layouts (the original file, the file of a paper's repository); a row is read by the
first layout whose prompt and target columns it has. A dot in a column's name steps into a nested object, or by a number
into a list: `output.0.answer`. `docs/datasets.md` lists the fields that each dataset fills, and its peculiarities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Layout(NamedTuple):
    """The column names of one published form of a dataset, for the fields of an `EditRequest`."""

    prompt: str
    target_new: str
    edits: str | None = None
    """Column of a list of objects, each one an edit, for datasets in which a case is several edits. Prompt, target,
    subject and phrasings are read from each object, the case's id and portability from the row: the case's last edit
    gets the portability prompts, as they need all edits. The edits are named `<case id>.<number>`."""
    may_lack_target: bool = False
    """Whether a row without a new answer is left out; otherwise it is an error."""
    case_id: str | None = None
    """Column of the case's id; without one, cases are named by dataset and row number."""
    subject: str | None = "subject"
    target_true: tuple[str, ...] = ()
    """Columns of answers before the edit (a text or a list); the first that differs from `target_new` is taken."""
    rephrase: tuple[str, ...] = ()
    """Columns of a phrasing or a list of phrasings."""
    persona: tuple[str, ...] = ()
    """Columns of the prompt in another persona's words."""
    text: tuple[str, ...] = ()
    """Columns of prompts of a longer text about the subject."""
    references: tuple[str, ...] = ()
    """Columns of reference texts for a longer text about the subject."""
    locality: tuple[tuple[str, str | None], ...] = ()
    """(prompts, answers) columns: a text or a list each; one text as answer serves every prompt of the column. A column
    may also contain probes, objects with `prompt` and `answer` (or `ground_truth`)."""
    portability: tuple[tuple[str, str | None], ...] = ()
    """As `locality`."""
    locality_suffix: str = ""
    """Appended to a locality prompt that does not end in it."""
    required: tuple[str, ...] = ()
    """Optional columns that the user named: every row must have them."""


class Hub(NamedTuple):
    """Where a dataset is on the dataset hub."""

    dataset_id: str
    split: str
    files: tuple[str, ...] = ()
    """The files to read; empty reads the whole dataset."""


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

_COUNTERFACT = Layout(
    prompt="requested_rewrite.prompt",
    target_new="requested_rewrite.target_new.str",
    case_id="case_id",
    subject="requested_rewrite.subject",
    target_true=("requested_rewrite.target_true.str",),
    rephrase=("paraphrase_prompts",),
    text=("generation_prompts",),
    references=("references",),  # published as a separate file (snippets); for users who added them to the rows
    locality=(("neighborhood_prompts", "requested_rewrite.target_true.str"),),
)
"""ROME's file (Meng et al. 2022): neighbours share the true object, so it is the answer to each of them."""

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
    "counterfact": (_COUNTERFACT, _COMMON),
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
    "fever": (
        # As prepared for MALMEN (Tan et al. 2024) and used by RLEdit and UltraEdit: a claim is edited to have the
        # label `alt`, and an unrelated claim keeps its own. The column of the right label differs between files.
        Layout(
            prompt="prompt",
            target_new="alt",
            case_id="case_id",
            target_true=("ans", "pred", "label"),
            rephrase=("equiv_prompt",),
            locality=(("unrel_prompt", "unrel_ans"),),
        ),
        # As prepared for KnowledgeEditor (De Cao et al. 2021) and used by MEND: a row has no unrelated claim, and a
        # claim without an alternative label is left out, as these authors do.
        Layout(
            prompt="input",
            target_new="alternatives.0",
            may_lack_target=True,
            case_id="id",
            target_true=("output.0.answer", "prediction"),
            rephrase=("filtered_rephrases",),
        ),
        _COMMON,
    ),
    "mquake": (
        # MQuAKE-CF, its parts of 3,000 cases, and MQuAKE-T (Zhong et al. 2023): one to four edits lead to one new
        # answer of three multi-hop questions. Of its spellings only `new_answer` is read, not `new_answer_alias`.
        Layout(
            edits="requested_rewrite",
            prompt="prompt",
            target_new="target_new.str",
            case_id="case_id",
            target_true=("target_true.str",),
            rephrase=("question",),
            portability=(("questions", "new_answer"),),
        ),
    ),
    # Single edits that break a model, from CounterFact, and 1,392 written to be like them (Yang et al. 2024, arXiv
    # 2402.09656). No published file was found to check against; described as CounterFact's, they are read like it.
    "hardcf": (_COUNTERFACT, _COMMON),
    "hardedit": (_COUNTERFACT, _COMMON),
}
"""Dataset -> its layouts, the most specific first."""

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
"""Dataset -> where it is fetched from without a local file; the others have no known source."""
