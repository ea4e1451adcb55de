from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from overedit.editing.metrics import prompt_key
from overedit.editing.requests import EditRequest, Probe
from overedit.tasks.data.catalog import HUBS, LAYOUTS
from overedit.tasks.data.deduplication import settle
from overedit.tasks.data.length_check import check_lengths
from overedit.tasks.data.loader import find_overwritten, load_requests
from overedit.tasks.data.options import DATASETS, DatasetOptions, FileColumns

ZSRE = {
    "subject": "IronPython",
    "src": "Which language is IronPython written in?",
    "pred": "Python",
    "rephrase": "What language was used to write IronPython?",
    "alt": " Java",
    "answers": ["Java", "C"],
    "loc": "nq question: what year did the us win",
    "loc_ans": "1960",
}
ROME = {
    "case_id": 3,
    "requested_rewrite": {
        "prompt": "The mother tongue of {} is",
        "subject": "Danielle Darrieux",
        "target_new": {"str": "English"},
        "target_true": {"str": "French"},
    },
    "paraphrase_prompts": ["Shayna does this. Danielle Darrieux, a native", "Danielle Darrieux speaks the language"],
    "neighborhood_prompts": ["Montesquieu, a native", "The native language of Rocard is"],
}
COUNTERFACT = {
    "case_id": 17985,
    "prompt": "Ferhat Abbas used to work in",
    "target_new": "Ottawa",
    "subject": "Ferhat Abbas",
    "ground_truth": "Paris",
    "rephrase_prompt": "White Gypsies. Ferhat Abbas found employment in",
    "locality_prompt": "James Joyce used to work in",
    "locality_ground_truth": "Paris",
}
KNOWEDIT = {
    "subject": "Epaspidoceras",
    "prompt": "Which family does Epaspidoceras belong to?",
    "target_new": "Noctuidae",
    "ground_truth": ["Aspidoceratidae"],
    "rephrase_prompt": "What family are Epaspidoceras?",
    "locality": {
        "Relation_Specificity": [{"prompt": "Epaspidoceras taxon rank", "ground_truth": [["genus", "genre"]]}]
    },
    "portability": {"Reasoning": [{"prompt": "What do Noctuidae do?", "ground_truth": "fly"}], "None": None},
}
WIKIBIGEDIT = {
    "subject": "Aesara",
    "update": "What is the occupation of Aesara?",
    "ans": "philosopher",
    "rephrase": "What did Aesara do?",
    "personas": "Tell me, what was Aesara's job?",
    "loc": "What is the occupation of Aesop?",
    "loc_ans": "writer",
    "mhop": "What is the field of Aesara's occupation?",
    "mhop_ans": "philosophy",
}
ULTRAEDITBENCH = {
    "case_id": 9,
    "subject": "X",
    "prompt": "Where is X?",
    "ans": "Here",
    "rephrase_prompt": "X is where?",
    "loc": "Where is Y?",
    "loc_ans": "There",
}
FEVER = {
    "prompt": "Telemundo is an English-language television network.",
    "equiv_prompt": ["Telemundo broadcasts in English.", "Telemundo's language is English."],
    "unrel_prompt": "Tim Roth was born in 1961.",
    "unrel_ans": "SUPPORTS",
    "alt": "SUPPORTS",
}
KILT_FEVER = {
    "id": 107190,
    "input": "The Nice Guys is a 2016 action comedy film.",
    "prediction": "SUPPORTS",
    "alternatives": ["REFUTES"],
    "filtered_rephrases": ["The Nice Guys, an action comedy, is of 2016.", "The Nice Guys is of 2016 and comic."],
    "output": [{"answer": "SUPPORTS", "provenance": [{"title": "The Nice Guys"}]}],
}
MQUAKE = {
    "case_id": 1561,
    "requested_rewrite": [
        {
            "prompt": "{} is associated with the sport of",
            "relation_id": "P641",
            "target_new": {"str": "cricket", "id": "Q5375"},
            "target_true": {"str": "association football", "id": "Q2736"},
            "subject": "Dudley Town F.C.",
            "question": "Which sport is Dudley Town F.C. associated with?",
        },
        {
            "prompt": "{} was created in the country of",
            "relation_id": "P495",
            "target_new": {"str": "France", "id": "Q142"},
            "target_true": {"str": "England", "id": "Q21"},
            "subject": "cricket",
            "question": "Which country was cricket created in?",
        },
    ],
    "questions": [
        "What is the capital of the country where Dudley Town F.C.'s sport originated?",
        "Which city is the capital of the country of Dudley Town F.C.'s sport?",
        "What is the capital of where the sport of Dudley Town F.C. was created?",
    ],
    "answer": "London",
    "answer_alias": ["London, UK"],
    "new_answer": "Paris",
    "new_answer_alias": ["Paris, France"],
}


def written(folder: Path, content: Any, name: str = "edits.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def read(path: Path, name: str = "file", **options: Any) -> tuple[EditRequest, ...]:
    return tuple(load_requests(DatasetOptions(name=name, path=path, **{"order_seed": None, **options})).requests)


def edit(prompt: str, target: str, case: str | None = None) -> dict[str, str]:
    return {"prompt": prompt, "target_new": target, **({"case_id": case} if case else {})}


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
    assert report.num_without_target == 1
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


def mquake(case: int, *facts: str, answer: str = "A") -> dict[str, Any]:
    """A case that edits facts such as `x=1`, with one question."""
    rewrites = [
        {"prompt": "{} is", "subject": fact.split("=")[0], "target_new": {"str": fact.split("=")[1]}} for fact in facts
    ]
    return {"case_id": case, "requested_rewrite": rewrites, "questions": [f"q{case}"], "new_answer": answer}


def asked(requests: tuple[EditRequest, ...]) -> dict[str, list[str]]:
    return {request.case_id: [probe.prompt for probe in request.portability] for request in requests}


def test_mquake_cases_stay_together_in_any_order(tmp_path: Path) -> None:
    cases = [mquake(case, f"a{case}=1", f"b{case}=1", f"c{case}=1") for case in range(20)]
    path = written(tmp_path, cases)
    ids = [request.case_id for request in read(path, "mquake", order_seed=4)]
    assert ids != [request.case_id for request in read(path, "mquake")]
    assert [ids[i].split(".") for i in range(0, 60, 3)] == [[ids[i + 2].split(".")[0], "1"] for i in range(0, 60, 3)]
    assert asked(read(path, "mquake", limit=5)) == {"0.1": [], "0.2": [], "0.3": ["q0"], "1.1": [], "1.2": []}


def test_a_dropped_duplicate_leaves_its_questions(tmp_path: Path) -> None:
    cases = [
        mquake(1, "a=1", "b=1"),
        mquake(2, "c=1", "a=1"),  # its last edit is there already: its first one is the newest that it needs
        mquake(3, "d=1"),
        mquake(4, "c=1", "a=1"),  # both are there
        mquake(5, "a=1", "e=1"),
    ]
    requests, report = load_requests(
        DatasetOptions(name="mquake", path=written(tmp_path, cases), order_seed=None, conflicts="error")
    )
    assert asked(tuple(requests)) == {"1.1": [], "1.2": ["q1"], "2.1": ["q2", "q4"], "3.1": ["q3"], "5.2": ["q5"]}
    assert report.duplicates == (("2.2", "1.1"), ("4.1", "2.1"), ("4.2", "1.1"), ("5.1", "1.1"))


def test_questions_on_a_fact_that_was_not_taken_are_not_asked(tmp_path: Path) -> None:
    path = written(tmp_path, [mquake(1, "a=1"), mquake(2, "a=2", "b=1"), mquake(3, "c=1", "a=3"), mquake(4, "a=4")])
    assert asked(read(path, "mquake", conflicts="first")) == {"1.1": ["q1"], "2.2": [], "3.1": []}
    assert asked(read(path, "mquake")) == {
        "1.1": ["q1"], "2.1": [], "2.2": ["q2"], "3.1": [], "3.2": ["q3"], "4.1": ["q4"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("mquake", MQUAKE | {"requested_rewrite": []}, r"row 2, column 'requested_rewrite': expected a list of obj"),
        ("mquake", MQUAKE | {"requested_rewrite": {"prompt": "x"}}, "column 'requested_rewrite': expected a list"),
        ("mquake", edit("a", "b"), "row 2: lacks the column 'requested_rewrite'"),
        (
            "mquake",
            MQUAKE | {"requested_rewrite": [MQUAKE["requested_rewrite"][0], {"prompt": "x", "subject": "x"}]},
            r"row 2: lacks the column 'requested_rewrite\.1\.target_new\.str'",
        ),
        (
            "mquake",
            MQUAKE | {"requested_rewrite": [{"prompt": 5, "target_new": {"str": "x"}}]},
            r"row 2, column 'requested_rewrite\.0\.prompt': expected a text, found int 5",
        ),
        ("mquake", MQUAKE | {"questions": [7]}, "row 2, column 'questions': expected a text, found int 7"),
        ("fever", {"prompt": "a"}, "row 2: lacks the column 'alt' or 'target_new'"),
        ("fever", {"claim": "a"}, "row 2: lacks the column 'prompt' or 'input'"),
        ("fever", KILT_FEVER | {"alternatives": [3]}, r"row 2, column 'alternatives\.0': expected a text, found int 3"),
        ("hardcf", ROME | {"requested_rewrite": {"prompt": "x"}}, r"lacks the column 'requested_rewrite\.target_new"),
    ],
)
def test_faulty_rows_of_known_datasets(tmp_path: Path, name: str, row: dict[str, Any], message: str) -> None:
    good = {"mquake": MQUAKE | {"case_id": 0}, "fever": FEVER}.get(name, ROME | {"case_id": 0})
    with pytest.raises(ValueError, match=message):
        read(written(tmp_path, [good, row]), name)


@pytest.mark.parametrize("name", ["hardcf", "hardedit"])
def test_hard_cases_are_read_like_counterfact(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, [ROME, COUNTERFACT])
    assert read(path, name) == read(path, "counterfact")


def test_own_file_with_named_columns(tmp_path: Path) -> None:
    row = {
        "q": "Capital of {}?",
        "new": "Lyon",
        "who": "france",
        "near": ["Capital of Spain?"],
        "gold": ["Madrid"],
        "p": "x",
    }
    columns = {"prompt": "q", "target_new": "new", "subject": "who", "locality": "near", "locality_answers": "gold"}
    columns |= {"portability": "p", "rephrase_prompts": "p"}
    (request,) = read(written(tmp_path, [row]), columns=columns)
    assert request == EditRequest(
        case_id="row-1",
        prompt="Capital of france?",
        subject="france",
        target_new="Lyon",
        rephrase_prompts=("x",),
        locality=(Probe(prompt="Capital of Spain?", answer="Madrid"),),
        portability=(Probe(prompt="x"),),
    )


def test_own_file_may_hold_the_records_themselves(tmp_path: Path) -> None:
    requests = (
        EditRequest(
            case_id="1", prompt="a", target_new="b", locality=(Probe(prompt="c", answer="d"), Probe(prompt="e"))
        ),
        EditRequest(case_id="2", prompt="f", target_new="g", subject="f", target_true="h", rephrase_prompts=("i", "j")),
        EditRequest(
            case_id="3", prompt="k", target_new="l", persona_prompts=("m",), text_prompts=("n",), references=("o", "p")
        ),
    )
    assert read(written(tmp_path, [request.model_dump() for request in requests])) == requests


def test_jsonl_parquet_and_jsonl_called_json(tmp_path: Path) -> None:
    rows = [edit("a", "b") | {"rephrase_prompts": ["x"]}, edit("c", "d") | {"rephrase_prompts": ["y", "z"]}]
    lines = "\n\n".join(json.dumps(row) for row in rows) + "\n"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "edits.parquet")
    expected = read(written(tmp_path, rows))
    assert read(written(tmp_path, lines, "edits.jsonl")) == expected
    assert read(written(tmp_path, "\ufeff" + lines, "lines.json")) == expected
    assert read(tmp_path / "edits.parquet") == expected
    assert expected[1].rephrase_prompts == ("y", "z")


def test_order_is_seeded_and_a_larger_limit_only_adds(tmp_path: Path) -> None:
    path = written(tmp_path, [edit(f"p{i}", "t") for i in range(50)])
    in_file = [request.case_id for request in read(path)]
    assert in_file == [f"row-{i}" for i in range(1, 51)]
    seven, again, other = (read(path, order_seed=seed) for seed in (7, 7, 8))
    assert seven == again != other
    assert {request.case_id for request in seven} == set(in_file)
    assert read(path, order_seed=7, limit=20) == seven[:20]
    assert read(path, limit=3) == read(path)[:3]


def test_duplicates_and_conflicts_are_reported(tmp_path: Path) -> None:
    rows = [("p", "x", "1"), ("q", "x", "2"), ("p ", "x", "3"), ("p", "y", "4"), ("q", "z", "5"), ("p", "x", "6")]
    path = written(tmp_path, [edit(*row) for row in rows])
    requests, report = load_requests(DatasetOptions(name="file", path=path, order_seed=None))
    assert [request.case_id for request in requests] == ["1", "2", "4", "5", "6"]
    assert report.duplicates == (("3", "1"),)
    assert [(c.prompt, c.cases, c.winner) for c in report.conflicts] == [
        ("p", (("1", "x"), ("4", "y"), ("6", "x")), "6"),
        ("q", (("2", "x"), ("5", "z")), "5"),
    ]
    assert report.overwritten == {"1": "4", "4": "6", "2": "5"}
    assert report.ceiling == pytest.approx(3 / 5)  # 1 and 6 ask the same; 4 and 2 are lost
    text = "\n".join(report.lines())
    assert "5 edits of 6 rows" in text
    assert "1 duplicates left out" in text
    assert "'p': 'x' (1), 'y' (4), 'x' (6); 6 wins" in text
    assert "cannot exceed 60.00%" in text


def test_conflicts_may_keep_the_first_or_stop(tmp_path: Path) -> None:
    path = written(tmp_path, [edit("p", "x", "1"), edit("p", "y", "2"), edit("p", "y", "3"), edit("q", "z", "4")])
    requests, report = load_requests(DatasetOptions(name="file", path=path, order_seed=None, conflicts="first"))
    assert [request.case_id for request in requests] == ["1", "4"]
    assert report.left_out == ("2", "3")
    assert report.conflicts[0].winner == "1"
    assert (report.overwritten, report.ceiling) == ({}, 1.0)
    with pytest.raises(ValueError, match=r"1 prompts have conflicting targets.*'x' \(1\), 'y' \(2\)"):
        read(path, conflicts="error")


@pytest.mark.parametrize("rule", ["last", "first"])
@pytest.mark.parametrize("seed", range(5))
def test_settling_is_what_a_list_of_all_edits_would_give(rule: Any, seed: int) -> None:
    draw = random.Random(seed)
    found = [
        EditRequest(
            case_id=str(i), prompt=draw.choice(["p", "q", "q ", "r", *"abcdefgh"]), target_new=draw.choice("xyz")
        )
        for i in range(40)
    ]
    for limit in (None, 12):
        settled = settle([(request,) for request in found], limit=limit, rule=rule)
        kept, seen = settled_in_memory(found, limit, rule)
        assert list(settled.requests) == kept
        same = {prompt: [r for r in seen if prompt_key(r.prompt) == prompt] for prompt in map(prompt_key, of(seen))}
        rivals = {prompt: some for prompt, some in same.items() if len(some) > 1}
        assert [[case for case, _ in c.cases] for c in settled.conflicts] == [
            [r.case_id for r in some] for some in rivals.values()
        ]
        last = {prompt_key(r.prompt): r for r in kept}
        assert [c.winner for c in settled.conflicts] == [last[prompt].case_id for prompt in rivals]
        num_met = sum(last[prompt_key(r.prompt)].target_new == r.target_new for r in kept)
        assert settled.ceiling == pytest.approx(num_met / len(kept))
        assert dict(settled.overwritten) == find_overwritten(kept)
        assert settled.left_out == tuple(r.case_id for r in seen if r not in kept)


def of(requests: list[EditRequest]) -> list[str]:
    return [request.prompt for request in requests]


def settled_in_memory(
    found: list[EditRequest], limit: int | None, rule: str
) -> tuple[list[EditRequest], list[EditRequest]]:
    """The edits, and all that are no duplicates of the edit that holds at their point."""
    kept: list[EditRequest] = []
    seen: list[EditRequest] = []
    for request in found:
        if len(kept) == limit:
            break
        before = [other for other in kept if prompt_key(other.prompt) == prompt_key(request.prompt)]
        if before and before[-1].target_new == request.target_new:
            continue
        seen.append(request)
        if not before or rule == "last":
            kept.append(request)
    return kept, seen


def test_find_overwritten_looks_past_repetitions() -> None:
    requests = [
        EditRequest(case_id=c, prompt="p", target_new=t) for c, t in (("1", "x"), ("2", "x"), ("3", "y"), ("4", "y"))
    ]
    assert find_overwritten(requests) == {"1": "3", "2": "3"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("[]", "holds no rows"),
        ('[{"prompt": "a",}]', "is not JSON: .* at line 1, column 1[67]"),
        ('[\n{"prompt": "a"\n"b"}]', "is not JSON: .* at line 3, column 1"),
        ('{"prompt": "a", "target_new": "b"}\n{"prompt": "a" "b"}', "is not JSON: .* at line 2, column 1[67]"),
        ("prompt,target\na,b", "is not JSON: .* at line 1, column 1"),
        ('{\n "data": []\n}', "holds one JSON object, not a list of objects"),
        ('"text"', "holds one JSON string"),
        ('[{"prompt": "a", "target_new": "b"}, 3]', "row 2: a JSON number, not an object"),
        ("[" * 100_000, "is not readable JSON"),
        (
            [edit("a", "b"), {"prompt": "c", "answer": "d"}],
            "row 2: lacks the column 'target_new'; .*'prompt', 'answer'",
        ),
        ([{"question": "c", "target_new": "d"}], "row 1: lacks the column 'prompt'"),
        ([edit("a", "b"), edit("c", "d"), edit("e", "  ")], "row 3, column 'target_new': empty"),
        ([edit("", "b")], "row 1, column 'prompt': empty"),
        ([{"prompt": "a", "target_new": None}], "row 1, column 'target_new': empty"),
        ([{"prompt": "a", "target_new": 1960}], "row 1, column 'target_new': expected a text, found int 1960"),
        (
            [edit("a", "b") | {"subject": {"x": "y" * 99}}],
            r"row 1, column 'subject': expected a text, found dict .*y\.\.\.",
        ),
        ([edit("a", "b") | {"case_id": 1.5}], "row 1, column 'case_id': expected a text or a whole number"),
        ([edit("a", "b", "7"), edit("c", "d"), edit("e", "f", "7")], "row 3: case id '7' is row 1's already"),
        ([edit("a\ud800", "b")], r"row 1, column 'prompt': half a surrogate pair \(U\+D800\) at character 2"),
        ([edit("a", "b\x00")], r"row 1, column 'target_new': a control character \(U\+0000\) at character 2"),
        (
            [edit("a", "b") | {"locality": ["x", "y"], "locality_answers": ["z"]}],
            "1 answers for the 2 prompts in 'locality'",
        ),
        ([edit("a", "b") | {"locality": [{"answer": "x"}]}], "row 1: lacks the column 'locality.prompt'"),
        (
            [edit("a", "b") | {"locality": "x", "locality_answers": 5}],
            "'locality_answers': expected a text, found int 5",
        ),
    ],
)
def test_bad_files_say_what_is_wrong_and_where(tmp_path: Path, content: Any, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_bad_places_and_kinds_of_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json does not exist"):
        read(tmp_path / "none.json")
    with pytest.raises(ValueError, match="is a folder"):
        read(tmp_path)
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04\x95")
    with pytest.raises(ValueError, match="neither JSON, JSONL nor Parquet: byte 1"):
        read(tmp_path / "model.pkl")
    (tmp_path / "half.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match="not a whole Parquet file"):
        read(tmp_path / "half.parquet")


def test_a_named_column_must_be_in_every_row(tmp_path: Path) -> None:
    path = written(tmp_path, [edit("a", "b") | {"s": "a"}, edit("c", "d")])
    with pytest.raises(ValueError, match="row 2: lacks the column 's'"):
        read(path, columns={"subject": "s"})


def test_a_limit_beyond_the_data_says_how_many_there_are(tmp_path: Path) -> None:
    path = written(tmp_path, [edit("a", "b"), edit("a", "b"), edit("c", "d")])
    with pytest.raises(
        ValueError, match=r"limit: 3 is more than the 2 edits that .* has \(3 rows, 1 of them duplicates"
    ):
        read(path, limit=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "zrse"}, "unknown dataset 'zrse'; did you mean 'zsre'.*known: pocket, zsre, counterfact"),
        ({"name": 5}, "unknown dataset 5 "),
        ({"name": "file"}, "dataset 'file' needs `path`"),
        ({"name": "zsre", "columns": {"prompt": "q"}}, "`columns` is for dataset 'file'"),
        ({"name": "zsre", "path": "x.json", "hub": "a/b"}, "`hub` is for a dataset of the hub"),
        ({"name": "pocket", "path": "x.json"}, "takes no `path`"),
        ({"name": "mquake"}, "'mquake' has no place on the dataset hub that is known; name a local file by `path`"),
        ({"name": "fever", "files": ["x"]}, "name a local file by `path`"),
        ({"name": "hardcf", "path": "x.json", "split": "test"}, "`split` is for a dataset of the hub, not for x.json"),
        ({"name": "pocket", "files": ["x"]}, "`files` is for a dataset of the hub, not for 'pocket'"),
        ({"name": "zsre", "limit": 0}, "limit"),
        ({"name": "zsre", "conflict": "last"}, "conflict\n"),
        ({"name": "file", "path": "x", "columns": {"promt": "q"}}, "columns.promt"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DatasetOptions(**options)


def test_options_survive_json() -> None:
    options = DatasetOptions(name="file", path=Path("x.json"), columns=FileColumns(prompt="q"), order_seed=None)
    assert DatasetOptions.model_validate_json(options.model_dump_json()) == options


def test_every_hub_dataset_has_a_layout() -> None:
    assert set(LAYOUTS) == set(DATASETS) - {"pocket", "file"}
    assert set(HUBS) == {"zsre", "counterfact", "wikibigedit", "ultraeditbench"}


def test_hub_rows_go_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: dict[str, Any] = {}

    def load_dataset(dataset_id: str, **options: Any) -> Any:
        asked.update(options, dataset_id=dataset_id)
        return datasets.Dataset.from_list([ROME, ROME | {"case_id": 4}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    requests, report = load_requests(DatasetOptions(name="counterfact", revision="abc", order_seed=None))
    assert asked == {"dataset_id": "azhx/counterfact", "data_files": None, "split": "train+test", "revision": "abc"}
    assert [request.case_id for request in requests] == ["3"]
    assert report.duplicates == (("4", "3"),)
    assert report.source == "azhx/counterfact (train+test, abc)"


def test_files_and_places_on_the_hub_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[str, Any, str]] = []

    def load_dataset(dataset_id: str, **options: Any) -> Any:
        asked.append((dataset_id, options["data_files"], options["split"]))
        return datasets.Dataset.from_list([WIKIBIGEDIT if "Big" in dataset_id else FEVER])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    interval = "wiki_big_edit_20240201_20240220.json"
    report = load_requests(DatasetOptions(name="wikibigedit", files=(interval,))).report
    load_requests(DatasetOptions(name="fever", hub="some/fever"))
    assert asked == [("lukasthede/WikiBigEdit", [interval], "train"), ("some/fever", None, "train")]
    assert interval in report.source


def test_a_hub_out_of_reach_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load_dataset(*args: Any, **options: Any) -> Any:
        raise ConnectionError("Couldn't reach the Hub\nlong trace")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        ValueError, match=r"'XiaojieGu/UltraEditBench' cannot be fetched .*reach the Hub\); name a local"
    ):
        load_requests(DatasetOptions(name="ultraeditbench"))


def test_pocket_edits() -> None:
    requests, report = load_requests(DatasetOptions(limit=25, order_seed=3))
    assert len(requests) == report.num_requests == 25
    assert len({request.case_id for request in requests}) == 25
    assert (report.overwritten, report.duplicates) == ({}, ())
    assert requests[:5] == tuple(load_requests(DatasetOptions(limit=5, order_seed=3)).requests)


class WordTokenizer:
    def __call__(self, texts: list[str]) -> dict[str, list[list[int]]]:
        return {"input_ids": [[len(word) for word in text.split()] for text in texts]}


def test_check_lengths_names_the_case() -> None:
    short = EditRequest(case_id="s", prompt="one two three", target_new="four", rephrase_prompts=("one",))
    long = EditRequest(case_id="l", prompt="one", target_new="two", locality=(Probe(prompt="1 2 3 4", answer="5 6"),))
    check_lengths([], WordTokenizer(), 1)
    check_lengths([short, long], WordTokenizer(), 7)
    with pytest.raises(ValueError, match=r"case 'l': its locality prompt with the answer has 6 tokens, .*context of 6"):
        check_lengths([short, long], WordTokenizer(), 6)
    with pytest.raises(ValueError, match="case 's': its edit prompt with the answer has 4 tokens"):
        check_lengths([short], WordTokenizer(), 4)


def test_check_lengths_of_what_is_not_asked_is_of_the_edit_alone() -> None:
    probed = EditRequest(case_id="p", prompt="a", target_new="b", target_true="c d e", rephrase_prompts=("1 2 3",))
    short = EditRequest(case_id="s", prompt="a", target_new="b")
    check_lengths([short, short, probed, short], WordTokenizer(), 3, asked={1, 2, 4})
    with pytest.raises(ValueError, match="'p'"):
        check_lengths([short, short, probed, short], WordTokenizer(), 3, asked={3})
    with pytest.raises(ValueError, match="case 'l': its edit prompt with the answer has 4 tokens"):
        long = EditRequest(case_id="l", prompt="a", target_new="b c d")
        check_lengths([*[probed] * 5000, long], WordTokenizer(), 4, asked=())


@pytest.mark.parametrize(
    ("name", "num_overwritten"),
    [("zsre", 0), ("counterfact", 5), ("wikibigedit", 0)],
)
def test_published_rows_load(shared: Path, name: str, num_overwritten: int) -> None:
    requests, report = load_requests(DatasetOptions(name=name, path=shared / "data" / f"{name}.json"))
    assert len(requests) == report.num_rows == 2000
    assert len(report.overwritten) == num_overwritten
    assert report.ceiling == 1 - num_overwritten / 2000
    assert report.num_without_subject == 0
    assert all(len(request.rephrase_prompts) == len(request.locality) == 1 for request in requests)
    assert all(request.locality[0].answer for request in requests)
    assert all(request.locality[0].prompt.endswith("?") for request in requests if name == "zsre")
    assert sum(request.target_true is None for request in requests) == (2000 if name == "wikibigedit" else 0)
