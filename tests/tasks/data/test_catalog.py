"""Published datasets become edit requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from overedit.editing.requests import EditRequest, Probe
from overedit.tasks.data.catalog import HUBS, LAYOUTS
from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.options import DATASETS, DatasetOptions
from tests.support.dataset_rows import (
    COUNTERFACT,
    FEVER,
    KILT_FEVER,
    KNOWEDIT,
    MQUAKE,
    ROME,
    ULTRAEDITBENCH,
    WIKIBIGEDIT,
    ZSRE,
    edit,
    read,
    written,
)


def test_zsre_row(tmp_path: Path) -> None:
    (request,) = read(written(tmp_path, [ZSRE]), "zsre")
    assert request == EditRequest(
        case_id="zsre-1",
        prompt="Which language is IronPython written in?",
        subject="IronPython",
        target_new="Java",
        target_true="C",  # the first answer that is not the new one
        rephrase_prompts=("What language was used to write IronPython?",),
        locality=(Probe(prompt="nq question: what year did the us win?", answer="1960"),),
    )


def test_zsre_question_marks_are_not_doubled(tmp_path: Path) -> None:
    (request,) = read(written(tmp_path, [ZSRE | {"loc": "who won? "}]), "zsre")
    assert request.locality[0].prompt == "who won?"


def test_counterfact_in_both_layouts(tmp_path: Path) -> None:
    rome, flat = read(written(tmp_path, [ROME, COUNTERFACT]), "counterfact")
    assert rome == EditRequest(
        case_id="3",
        prompt="The mother tongue of Danielle Darrieux is",
        subject="Danielle Darrieux",
        target_new="English",
        target_true="French",
        rephrase_prompts=tuple(ROME["paraphrase_prompts"]),
        locality=tuple(Probe(prompt=prompt, answer="French") for prompt in ROME["neighborhood_prompts"]),
    )
    assert flat == EditRequest(
        case_id="17985",
        prompt="Ferhat Abbas used to work in",
        subject="Ferhat Abbas",
        target_new="Ottawa",
        target_true="Paris",
        rephrase_prompts=("White Gypsies. Ferhat Abbas found employment in",),
        locality=(Probe(prompt="James Joyce used to work in", answer="Paris"),),
    )


def test_knowedit_groups_become_probes(tmp_path: Path) -> None:
    (request,) = read(written(tmp_path, [KNOWEDIT]), "zsre")
    assert request.target_true == "Aspidoceratidae"
    assert request.locality == (Probe(prompt="Epaspidoceras taxon rank", answer="genus"),)
    assert request.portability == (Probe(prompt="What do Noctuidae do?", answer="fly"),)


def test_wikibigedit_and_ultraeditbench(tmp_path: Path) -> None:
    wiki, without_hop = read(
        written(tmp_path, [WIKIBIGEDIT, WIKIBIGEDIT | {"update": "?", "mhop": None}]), "wikibigedit"
    )
    assert wiki.rephrase_prompts == ("What did Aesara do?",)
    assert wiki.persona_prompts == ("Tell me, what was Aesara's job?",)
    assert wiki.portability == (Probe(prompt="What is the field of Aesara's occupation?", answer="philosophy"),)
    assert wiki.target_true is None
    assert without_hop.portability == ()
    assert without_hop.subject == "Aesara"  # though the prompt does not hold it: methods that need it say so
    (ultra,) = read(written(tmp_path, [ULTRAEDITBENCH]), "ultraeditbench")
    assert (ultra.case_id, ultra.target_new, ultra.locality[0].answer) == ("9", "Here", "There")


def test_wikibigedit_without_personas_or_hops(tmp_path: Path) -> None:
    bare = WIKIBIGEDIT | {"personas": None, "mhop": None, "mhop_ans": None}
    half = WIKIBIGEDIT | {"update": "?", "mhop_ans": None}
    without, unanswered = read(written(tmp_path, [bare, half]), "wikibigedit")
    assert (without.persona_prompts, without.portability) == ((), ())
    assert unanswered.portability == (Probe(prompt="What is the field of Aesara's occupation?"),)


def test_fever_in_its_layouts(tmp_path: Path) -> None:
    without = KILT_FEVER | {"id": 5, "alternatives": []}
    path = written(tmp_path, [FEVER, KILT_FEVER, without, edit("A claim.", "REFUTES")])
    (claim, kilt, common), report = load_requests(DatasetOptions(name="fever", path=path, order_seed=None))
    assert claim == EditRequest(
        case_id="fever-1",
        prompt="Telemundo is an English-language television network.",
        target_new="SUPPORTS",
        rephrase_prompts=("Telemundo broadcasts in English.", "Telemundo's language is English."),
        locality=(Probe(prompt="Tim Roth was born in 1961.", answer="SUPPORTS"),),
    )
    assert (kilt.case_id, kilt.target_new, kilt.target_true) == ("107190", "REFUTES", "SUPPORTS")
    assert (len(kilt.rephrase_prompts), kilt.locality) == (2, ())
    assert (common.prompt, common.target_new) == ("A claim.", "REFUTES")
    assert report.deduplicated.num_without_target == 1
    assert "1 rows left out (no new answer)" in report.lines()


def test_mquake_cases_become_their_edits(tmp_path: Path) -> None:
    first, last = read(written(tmp_path, [MQUAKE]), "mquake")
    assert first == EditRequest(
        case_id="1561.1",
        prompt="Dudley Town F.C. is associated with the sport of",
        subject="Dudley Town F.C.",
        target_new="cricket",
        target_true="association football",
        rephrase_prompts=("Which sport is Dudley Town F.C. associated with?",),
    )
    assert (last.case_id, last.prompt, last.target_new) == (
        "1561.2",
        "cricket was created in the country of",
        "France",
    )
    assert last.portability == tuple(Probe(prompt=question, answer="Paris") for question in MQUAKE["questions"])


@pytest.mark.parametrize("name", ["hardcf", "hardedit"])
def test_hard_cases_are_read_like_counterfact(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, [ROME, COUNTERFACT])
    assert read(path, name) == read(path, "counterfact")


def test_every_hub_dataset_has_a_layout() -> None:
    assert set(LAYOUTS) == set(DATASETS) - {"pocket", "file"}
    assert set(HUBS) == {"zsre", "counterfact", "wikibigedit", "ultraeditbench"}


@pytest.mark.parametrize(
    ("name", "num_overwritten"),
    [("zsre", 0), ("counterfact", 5), ("wikibigedit", 0)],
)
def test_published_rows_load(shared: Path, name: str, num_overwritten: int) -> None:
    requests, report = load_requests(DatasetOptions(name=name, path=shared / "data" / f"{name}.json"))
    assert len(requests) == report.num_rows == 2000
    assert len(report.deduplicated.overwritten) == num_overwritten
    assert report.deduplicated.ceiling == 1 - num_overwritten / 2000
    assert report.num_without_subject == 0
    assert all(len(request.rephrase_prompts) == len(request.locality) == 1 for request in requests)
    assert all(request.locality[0].answer for request in requests)
    assert all(request.locality[0].prompt.endswith("?") for request in requests if name == "zsre")
    assert sum(request.target_true is None for request in requests) == (2000 if name == "wikibigedit" else 0)
