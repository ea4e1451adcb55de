"""A row of each published dataset, files of such rows, and reading them back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from overedit.editing.requests import EditRequest
from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.options import DatasetOptions

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


def mquake(case: int, *facts: str, answer: str = "A") -> dict[str, Any]:
    """A case that edits facts such as `x=1`, with one question."""
    rewrites = [
        {"prompt": "{} is", "subject": fact.split("=")[0], "target_new": {"str": fact.split("=")[1]}} for fact in facts
    ]
    return {"case_id": case, "requested_rewrite": rewrites, "questions": [f"q{case}"], "new_answer": answer}


def asked(requests: tuple[EditRequest, ...]) -> dict[str, list[str]]:
    return {request.case_id: [probe.prompt for probe in request.portability] for request in requests}
