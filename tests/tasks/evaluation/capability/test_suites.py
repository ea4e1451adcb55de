"""Suites, worked examples, groups, and items from local files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from overedit.tasks.engine.base import Engine
from overedit.tasks.evaluation.capability.local_items import files_digest
from overedit.tasks.evaluation.capability.options import AskedTask, CapabilityOptions
from overedit.tasks.evaluation.capability.scoring import headline, is_right_or_wrong, measure_capability
from overedit.tasks.evaluation.capability.suites import SUITES
from overedit.tasks.evaluation.capability.task_loading import load_tasks
from tests.support.lm_eval_tasks import CHOICE, GENERATION, write_tasks
from tests.support.small_model import COLOURS, FACTS

GLUE = "include: {own}/glue/{name}/default.yaml\ntask: {name}\n"
MMLU = "include: {own}/mmlu/default/mmlu_{subject}.yaml\ntask: mmlu_{subject}\n"


def own_task(folder: Path, *texts: str) -> Path:
    """A folder with lm-eval's own tasks by inclusion: all of lm-eval's need not be looked through for them."""
    import lm_eval

    own = Path(lm_eval.__file__).parent / "tasks"
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text.replace("{own}", str(own)))
    return folder


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sentences(count: int, word: str = "good") -> list[dict[str, Any]]:
    return [{"sentence": f"a {word} film, number {i}", "label": i % 2, "idx": i} for i in range(count)]


def questions(count: int, subject: str) -> list[dict[str, Any]]:
    return [
        {"question": f"Which of {subject} is {i}?", "choices": ["a", "b", "c", "d"], "answer": i % 4}
        for i in range(count)
    ]


def asking(folder: Path, *tasks: str, **more: Any) -> CapabilityOptions:
    return CapabilityOptions(tasks=tasks, include_path=folder, trust_task_code=True, **more)


def prompts(options: CapabilityOptions, task: str) -> list[str]:
    """What would be asked, without an engine."""
    loaded = load_tasks(options)
    loaded.reseed()
    found = loaded.task_dict["tasks"][task]
    found.build_all_requests(limit=options.most_items)
    return [instance.args[0] for instance in found.instances if instance.idx == 0]


# suites


def test_a_suite_is_its_tasks_with_their_worked_examples_and_limit() -> None:
    options = CapabilityOptions(suite="should-we-edit", tasks=("mmlu", "piqa", "piqa"))
    assert options.asked[0] == AskedTask("mmlu", 5) and options.asked[-1] == AskedTask("piqa", None)
    assert len(options.asked) == len(SUITES["should-we-edit"].tasks) + 1
    assert options.most_items is None
    assert CapabilityOptions(suite="locft").most_items == 500
    assert CapabilityOptions(suite="locft", limit=3).most_items == 3
    assert CapabilityOptions().asked == ()
    with pytest.raises(ValidationError, match="no suite 'loc-ft'; accepted: locft, should-we-edit, quick"):
        CapabilityOptions(suite="loc-ft")


@pytest.mark.usefixtures("own_tasks_read_once")
@pytest.mark.slow  # all of lm-eval's own tasks are looked through
def test_suites_name_tasks_that_are_there_by_their_headline_metric() -> None:
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    index = TaskManager().task_index
    for suite in SUITES.values():
        for task in suite.tasks:
            content = load_yaml(index[task.name].yaml_path, resolve_func=False, recursive=True)
            metrics = content.get("aggregate_metric_list") or content["metric_list"]
            names = [metric["metric"] for metric in metrics]
            assert headline(names, {"ter": False}) == task.metric, task.name


def test_worked_examples_are_the_tasks_own_the_suites_or_as_said_by_name(tmp_path: Path) -> None:
    folder = own_task(tmp_path / "t", GLUE.replace("{name}", "sst2"), MMLU.replace("{subject}", "anatomy"))
    write_rows(tmp_path / "sst2" / "validation.jsonl", sentences(4))
    write_rows(tmp_path / "sst2" / "train.jsonl", sentences(6, "bad"))
    write_rows(tmp_path / "mmlu" / "anatomy" / "test.jsonl", questions(4, "the bones"))
    write_rows(tmp_path / "mmlu" / "anatomy" / "dev.jsonl", questions(5, "the nerves"))
    base = asking(folder, "sst2", "mmlu_anatomy", files={"sst2": tmp_path / "sst2", "mmlu_anatomy": tmp_path / "mmlu"})

    def number(**more: Any) -> tuple[int, int]:
        options = base.model_copy(update=more)
        return prompts(options, "sst2")[0].count("bad"), prompts(options, "mmlu_anatomy")[0].count("nerves")

    assert number() == (0, 0)
    assert number(num_fewshot=2) == (2, 2)
    assert number(num_fewshot=2, shots={"sst2": 1}) == (1, 2)
    assert number(shots={"mmlu_anatomy": 5}) == (0, 5)
    with pytest.raises(ValueError, match=r"capability.shots: 'mmlu' is not asked; asked are mmlu_anatomy, sst2"):
        load_tasks(base.model_copy(update={"shots": {"mmlu": 5}}))
    with pytest.raises(ValueError, match=r"6 worked examples .* 'dev' .* holds 5"):
        load_tasks(base.model_copy(update={"shots": {"mmlu_anatomy": 6}}))


def test_the_same_worked_examples_are_shown_at_every_checkpoint(
    transformers_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm_eval

    rows = [{"prompt": prompt, "choices": COLOURS[:3], "label": 0} for prompt, _ in FACTS[:30]]
    write_tasks(tmp_path / "t", rows, small=CHOICE)
    seen, evaluate = [], lm_eval.evaluate

    def watched(**arguments: Any) -> Any:
        seen.append(evaluate(**arguments))
        return seen[-1]

    monkeypatch.setattr(lm_eval, "evaluate", watched)
    options = asking(tmp_path / "t", "small", num_fewshot=1, limit=5)
    first, second = (measure_capability(transformers_engine, options) for _ in range(2))
    hashes = [[row["prompt_hash"] for row in result["samples"]["small"]] for result in seen]
    assert hashes[0] == hashes[1] and len(set(hashes[0])) == 5
    assert first == second


# groups


GROUP = """
group: both
task: [first, {group: inner, task: [second, third], aggregate_metric_list: [{metric: acc, weight_by_size: true}]}]
aggregate_metric_list: [{metric: acc, weight_by_size: WEIGHTED}]
"""


@pytest.mark.parametrize("weighted", [True, False])
def test_a_group_has_a_score_and_its_parts_name_it(transformers_engine: Engine, tmp_path: Path, weighted: bool) -> None:
    folder = tmp_path / "t"
    for name, at, size in (("first", 0, 10), ("second", 10, 30), ("third", 40, 20)):
        rows = [
            {"prompt": prompt, "choices": [answer, *[c for c in COLOURS if c != answer][: 1 + at // 10]], "label": 0}
            for prompt, answer in FACTS[at : at + size]
        ]
        write_tasks(folder / name, rows, **{name: CHOICE})
    write_tasks(folder / "alone", [{"prompt": p, "answer": a} for p, a in FACTS[:5]], alone=GENERATION)
    (folder / "both.yaml").write_text(GROUP.replace("WEIGHTED", str(weighted).lower()))
    options = asking(folder, "both", "alone")
    scores, samples = measure_capability(transformers_engine, options)
    rows = {row["task"]: row for row in scores}
    inner = next(name for name in rows if name.endswith("inner"))
    assert {task: row["part_of"] for task, row in rows.items()} == {
        "first": "both", "second": "both", "third": "both", inner: "both", "both": None, "alone": None,
    }  # fmt: skip
    parts = [rows[name] for name in ("first", "second", "third")]
    weights = [10 / 60, 30 / 60, 20 / 60] if weighted else [1 / 3] * 3
    whole = rows["both"]
    assert (whole["num_samples"], whole["main"]) == (60, True)
    for key in ("value", "chance"):
        expected = sum(weight * part[key] for weight, part in zip(weights, parts, strict=True))
        assert whole[key] == pytest.approx(expected)
    layers = sum((weight * part["stderr"]) ** 2 for weight, part in zip(weights, parts, strict=True)) ** 0.5
    assert whole["stderr"] == pytest.approx(layers, rel=0.1), "lm-eval pools the variances; nearly the same"
    assert {row["task"] for row in samples} == {"first", "second", "third", "alone"}
    assert len({(row["task"], row["doc_id"], row["metric"]) for row in samples}) == len(samples) == 65
    assert load_tasks(options).num_items(None) == {"both": 60, "alone": 5}
    assert load_tasks(options).num_items(12) == {"both": 10 + 12 + 12, "alone": 5}
    with pytest.raises(ValueError, match=r"capability.tasks: first holds 'first', which is asked already"):
        load_tasks(asking(folder, "both", "first"))


def test_a_translation_is_scored_as_a_share_with_a_value_for_each_item(
    transformers_engine: Engine, tmp_path: Path
) -> None:
    import sacrebleu

    text = GENERATION.partition("filter_list")[0] + "metric_list: [{metric: bleu}, {metric: chrf}, {metric: ter}]\n"
    facts = [{"prompt": prompt, "answer": f"{answer} or {answer} it is then"} for prompt, answer in FACTS[:40]]
    write_tasks(tmp_path / "t", facts, translation=text)
    scores, samples = measure_capability(transformers_engine, asking(tmp_path / "t", "translation"))
    loaded = load_tasks(asking(tmp_path / "t", "translation"))
    assert (loaded.num_items(None), loaded.num_items(None, of=is_right_or_wrong)) == ({"translation": 40}, {})
    by_metric = {row["metric"]: row for row in scores}
    assert {metric: row["main"] for metric, row in by_metric.items()} == {"bleu": True, "chrf": False, "ter": False}
    answers = [row for row in samples if row["metric"] == "chrf"]
    said, meant = [row["response"] for row in answers], [row["target"] for row in answers]
    assert by_metric["chrf"]["value"] == pytest.approx(sacrebleu.corpus_chrf(said, [meant]).score / 100)
    assert by_metric["bleu"]["value"] == pytest.approx(sacrebleu.corpus_bleu(said, [meant]).score / 100)
    alone = [sacrebleu.corpus_chrf([one], [[right]]).score / 100 for one, right in zip(said, meant, strict=True)]
    assert [row["value"] for row in answers] == pytest.approx(alone) and 0 < max(alone) <= 1
    spread = (sum((one - sum(alone) / 40) ** 2 for one in alone) / 39) ** 0.5 / 40**0.5
    assert by_metric["chrf"]["stderr"] == pytest.approx(spread, rel=0.5), "near that of the items' mean"


# local files


def test_a_file_takes_the_place_of_a_download(transformers_engine: Engine, tmp_path: Path) -> None:
    folder = own_task(tmp_path / "t", GLUE.replace("{name}", "sst2"))
    rows = [row | {"sentence": "{{ 7 * 7 }} {% raw %}" + row["sentence"]} for row in sentences(6)]
    file = write_rows(tmp_path / "mine.jsonl", rows)
    options = asking(folder, "sst2", files={"sst2": file})
    scores, samples = measure_capability(transformers_engine, options)
    assert [row["num_samples"] for row in scores] == [6] and scores[0]["chance"] == 0.5
    assert [row["target"] for row in samples] == ["negative", "positive"] * 3
    asked = prompts(options, "sst2")
    assert asked[0].startswith("{{ 7 * 7 }} {% raw %}a good film, number 0\nQuestion:"), "rows are no templates"
    before = files_digest(options.files)
    write_rows(file, rows[:5])
    assert files_digest(options.files) != before
    assert len(prompts(options, "sst2")) == 5, "another content is read anew"


@pytest.mark.parametrize(
    "layout", ["sst2/validation-00000-of-00001.parquet", "data/validation.json", "validation.jsonl"]
)
def test_folders_are_read_as_a_hub_keeps_datasets(tmp_path: Path, layout: str) -> None:
    folder = own_task(tmp_path / "t", GLUE.replace("{name}", "sst2"))
    path, rows = tmp_path / "own" / layout, sentences(5)
    path.parent.mkdir(parents=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows[:3]), path)
        pq.write_table(pa.Table.from_pylist(rows[3:]), path.with_name("validation-00001-of-00002.parquet"))
    else:
        text = json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows))
        path.write_text(text)
    asked = prompts(asking(folder, "sst2", files={"sst2": tmp_path / "own"}), "sst2")
    assert [prompt.partition("\n")[0] for prompt in asked] == [row["sentence"] for row in rows]


def test_a_group_reads_a_folder_for_each_of_its_tasks(tmp_path: Path) -> None:
    subjects = ("anatomy", "astronomy")
    group = "group: mine\ntask: [mmlu_anatomy, mmlu_astronomy]\naggregate_metric_list: [{metric: acc}]\n"
    folder = own_task(tmp_path / "t", group, *(MMLU.replace("{subject}", subject) for subject in subjects))
    for subject in subjects:
        write_rows(tmp_path / "mmlu" / subject / "test.jsonl", questions(3, subject))
    options = asking(folder, "mine", files={"mine": tmp_path / "mmlu"})
    assert load_tasks(options).num_items(None) == {"mine": 6}
    assert "of astronomy is 0" in prompts(options, "mmlu_astronomy")[0]


@pytest.mark.parametrize(
    ("rows", "file", "more", "message"),
    [
        (sentences(3), "none.jsonl", {}, "capability.files.sst2: there is no file or folder .*none.jsonl"),
        ([{"text": "a", "label": 1}], "x.jsonl", {}, "sst2: .*x.jsonl, row 1, has no column 'sentence'; it has label"),
        ([*sentences(1), {"sentence": "a"}], "x.jsonl", {}, "x.jsonl, row 2, has no column 'label'"),
        ([{"sentence": "a", "label": 1}, {"sentence": 3, "label": 1}], "x.jsonl", {}, "values of several kinds"),
        (
            sentences(3),
            "x.jsonl",
            {"num_fewshot": 1},
            "split 'train', and .*x.jsonl is only what is asked; name a folder",
        ),
        (sentences(3), "", {}, "has no file of the split 'validation' .*; it has x.jsonl"),
        ([], "x.jsonl", {}, "capability.files.sst2: dataset file .*x.jsonl is empty"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, rows: list[dict[str, Any]], file: str, more: dict[str, Any], message: str
) -> None:
    folder = own_task(tmp_path / "t", GLUE.replace("{name}", "sst2"))
    write_rows(tmp_path / "own" / "x.jsonl", rows)
    with pytest.raises(ValueError, match=message):
        load_tasks(asking(folder, "sst2", files={"sst2": tmp_path / "own" / file}, **more))


def test_csv_holds_no_items(tmp_path: Path) -> None:
    """Its numbers would be texts."""
    (tmp_path / "rows.csv").write_text("sentence,label\na,1\n")
    folder = own_task(tmp_path / "t", GLUE.replace("{name}", "sst2"))
    with pytest.raises(ValueError, match=r"sst2: .*rows.csv: JSON, JSONL and Parquet are accepted; the values of CSV"):
        load_tasks(asking(folder, "sst2", files={"sst2": tmp_path / "rows.csv"}))


def test_files_of_what_is_not_asked_are_an_error(tmp_path: Path) -> None:
    folder = own_task(tmp_path / "t", GLUE.replace("{name}", "sst2"))
    file = write_rows(tmp_path / "x.jsonl", sentences(3))
    with pytest.raises(ValueError, match=r"capability.files: 'rte' is not asked; asked are sst2"):
        load_tasks(asking(folder, "sst2", files={"sst2": file, "rte": file}))
