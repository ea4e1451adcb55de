"""An edited model through Overedit's running engine, and its exported folder through lm-eval's own command line.

The engine holds the base and has the checkpoint swapped in; lm-eval starts anew with the exported model. They must say
the same of every item. lm-eval's command line for transformers models needs a package that is not among our
dependencies, so both engines are compared with its vLLM.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lm_eval
import pytest
import yaml

from overedit.editing.methods.ft_m import FtM
from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.options import DatasetOptions
from overedit.tasks.editing_job.job import EditingJob, run_editing_job
from overedit.tasks.engine.base import Engine
from overedit.tasks.engine.factory import load_in_process
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.evaluation.capability.scoring import Capability, measure_capability
from overedit.tasks.models.export import export_checkpoint
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.pocket_world.lm_eval_items import write_lm_eval_tasks
from tests.support.warm_process import WarmProcess

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_tasks_read_once")]

LIMIT = 25
POCKET_TASKS = ("pocket_agreement", "pocket_arithmetic", "pocket_copy", "pocket_facts")
SUBJECTS = ("miscellaneous", "moral_disputes")
SHOTS = {"sst2": 3, "parity_mmlu": 2}
ATOL_NATS = 1e-3
"""Two runs of one engine differ by how vLLM happened to batch; two engines, by their kernels."""
RTOL_TEXT = 1e-5
"""The same, of the sum over a thousand tokens."""

COMMAND_LINE = """
import os
from functools import partial
from pathlib import Path

import datasets
import lm_eval.tasks

from overedit.tasks.engine.vllm_environment import register_in_process, starting_vllm, vllm_named

datasets.config.HF_DATASETS_CACHE = Path(os.environ["HF_DATASETS_CACHE"])
lm_eval.tasks.TaskManager = partial(lm_eval.tasks.TaskManager, include_defaults=False)
with starting_vllm(), vllm_named():
    from lm_eval.__main__ import cli_evaluate
    register_in_process(["LlamaForCausalLM"])
    cli_evaluate()
"""
"""`python -m lm_eval`, where vLLM runs on a CPU: its package is called otherwise there, and nothing is compiled.

All tasks are in the folder to be included, so lm-eval's own need not be looked through for them.
"""


class Harness(NamedTuple):
    """What lm-eval's command line left."""

    samples: dict[str, list[dict[str, Any]]]
    results: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pocket model after a few edits, which change some answers and not most."""
    job = EditingJob(
        model=ModelReference(), method=FtM(site="4.down_proj", learning_rate=1e-3, max_steps=30), edit_counts=(20,)
    )
    requests = load_requests(DatasetOptions(name="pocket", limit=20)).requests
    (edited,) = run_editing_job(job, requests, tmp_path_factory.mktemp("trajectory"))
    return edited.folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """Real rows as a hub's datasets keep them: a folder each, a file a split."""
    folder = tmp_path_factory.mktemp("data")
    rows = {name: read_rows(shared / "data" / f"{name}.jsonl") for name in ("sst2", "rte", "mmlu")}
    write_rows(folder / "sst2" / "train.jsonl", rows["sst2"][:100])
    write_rows(folder / "sst2" / "validation.jsonl", rows["sst2"][100:200])
    write_rows(folder / "rte" / "validation.jsonl", rows["rte"])
    texts = [" ".join(row["question"] for row in rows["mmlu"][at : at + 9]) for at in range(0, 27, 9)]
    write_rows(folder / "texts.jsonl", [{"text": text} for text in (*texts, "Short.")])
    for subject in SUBJECTS:
        own = [row for row in rows["mmlu"] if row["subject"] == subject]
        write_rows(folder / "mmlu" / subject / "dev.jsonl", own[:5])
        write_rows(folder / "mmlu" / subject / "test.jsonl", own[5 : 60 if subject == SUBJECTS[0] else 20])
    return folder


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, data: Path) -> CapabilityOptions:
    """The pocket world's tasks, and lm-eval's own over the real rows, two of them in a group."""
    folder = tmp_path_factory.mktemp("tasks")
    write_lm_eval_tasks(folder)
    write_group_and_text(folder, data)
    return CapabilityOptions(
        tasks=(*POCKET_TASKS, "sst2", "rte", "parity_mmlu", "parity_text"),
        include_path=folder,
        trust_task_code=True,
        files={"sst2": data / "sst2", "rte": data / "rte" / "validation.jsonl", "parity_mmlu": data / "mmlu"},
        shots=SHOTS,
        limit=LIMIT,
    )


@pytest.fixture(scope="module")
def harness(
    tmp_path_factory: pytest.TempPathFactory,
    warm_vllm: WarmProcess,
    checkpoint: Path,
    data: Path,
    options: CapabilityOptions,
) -> Harness:
    """The exported model through lm-eval's command line, with the data named in task files."""
    folder = tmp_path_factory.mktemp("harness")
    export_checkpoint(checkpoint, folder / "model")
    write_lm_eval_tasks(folder / "tasks")
    write_group_and_text(folder / "tasks", data)
    ours = Path(lm_eval.__file__).parent / "tasks"
    splits = {"validation": data / "sst2" / "validation.jsonl", "train": data / "sst2" / "train.jsonl"}
    write_task(folder / "tasks", ours / "glue" / "sst2" / "default.yaml", splits, num_fewshot=SHOTS["sst2"])
    splits = {"validation": data / "rte" / "validation.jsonl"}
    write_task(folder / "tasks", ours / "glue" / "rte" / "default.yaml", splits, training_split=None)
    for subject in SUBJECTS:
        splits = {split: data / "mmlu" / subject / f"{split}.jsonl" for split in ("test", "dev")}
        own = ours / "mmlu" / "default" / f"mmlu_{subject}.yaml"
        write_task(folder / "tasks", own, splits, num_fewshot=SHOTS["parity_mmlu"])
    model = f"pretrained={folder / 'model'},dtype=float32,enforce_eager=True,kv_cache_memory_bytes={2**27}"
    command = ["run", "--model", "vllm", "--model_args", model, "--tasks", ",".join(options.tasks)]
    command += ["--include_path", str(folder / "tasks"), "--limit", str(LIMIT), "--batch_size", "auto"]
    command += ["--log_samples", "--output_path", str(folder / "out")]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    done = warm_vllm.run(COMMAND_LINE, *command, environment=environment, log=folder / "log.txt")
    assert done.wait() == 0, done.said()[-3000:]
    samples = {
        path.name.removeprefix("samples_").rpartition("_")[0]: read_rows(path)
        for path in (folder / "out").rglob("samples_*.jsonl")
    }
    (results,) = (folder / "out").rglob("results_*.json")
    return Harness(samples, json.loads(results.read_text())["results"])


@pytest.fixture(scope="module", params=["vllm", pytest.param("transformers", marks=pytest.mark.long)])
def engine(request: pytest.FixtureRequest, checkpoint: Path) -> Iterator[Engine]:
    """An engine that was started with the base and has the checkpoint swapped in."""
    if request.param == "vllm":
        pytest.importorskip("vllm")
    running = load_in_process(ModelReference("pocket"), EngineOptions(kind=request.param))
    running.swap(checkpoint)
    yield running
    running.close()


@pytest.fixture(scope="module")
def measured(engine: Engine, options: CapabilityOptions) -> tuple[Capability, dict[str, Any]]:
    """The rows for the warehouse, and lm-eval's own record of what they were made from."""
    seen: dict[str, Any] = {}
    evaluate = lm_eval.evaluate

    def watched(**arguments: Any) -> Any:
        seen.update(evaluate(**arguments))
        return seen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm_eval, "evaluate", watched)
        return measure_capability(engine, options), seen


def test_every_item_is_asked_and_answered_alike(harness: Harness, measured: tuple[Capability, dict[str, Any]]) -> None:
    samples = measured[1]["samples"]
    assert samples.keys() == harness.samples.keys() and len(samples) == 9
    for task, theirs in harness.samples.items():
        ours = {(row["doc_id"], row["filter"]): row for row in samples[task]}
        assert len(ours) == len(theirs) >= 4
        for row in theirs:
            own = ours[row["doc_id"], row["filter"]]
            assert (own["prompt_hash"], own["target_hash"]) == (row["prompt_hash"], row["target_hash"]), task
            same_answers(own["resps"], row["resps"])


def test_every_stored_sample_has_the_harness_value(
    harness: Harness, measured: tuple[Capability, dict[str, Any]]
) -> None:
    stored = {(row["task"], row["doc_id"], row["metric"]): row["value"] for row in measured[0].samples}
    assert len(stored) == len(measured[0].samples), "an item has one row a metric"
    theirs = {
        (task, row["doc_id"], metric if row["filter"] == "none" else f"{metric},{row['filter']}"): float(row[metric])
        for task, rows in harness.samples.items()
        for row in rows
        for metric in row["metrics"]
        if task != "parity_text"  # a perplexity is of all texts together
    }
    assert stored == theirs
    assert 0.2 < sum(stored.values()) / len(stored) < 0.95, "some are right and some are wrong"


def test_every_score_and_its_error_are_the_harness_ones(
    harness: Harness, measured: tuple[Capability, dict[str, Any]]
) -> None:
    scores = measured[0].scores
    assert {row["task"] for row in scores} == harness.results.keys()
    for row in scores:
        theirs = harness.results[row["task"]]
        metric, _, name = row["metric"].partition(",")
        exact = 1e-4 if metric == "word_perplexity" else 1e-12  # sums of log-likelihoods, or counts
        assert row["value"] == pytest.approx(theirs[f"{metric},{name or 'none'}"], rel=exact), row
        if metric != "word_perplexity":
            assert row["stderr"] == pytest.approx(theirs[f"{metric}_stderr,{name or 'none'}"], rel=1e-9), row
        assert row["num_samples"] == theirs["sample_len"]
    parts = {row["task"]: row["part_of"] for row in scores}
    assert {task for task, group in parts.items() if group} == {f"mmlu_{subject}" for subject in SUBJECTS}


def same_answers(ours: Any, theirs: Any) -> None:
    """The same texts, or the same log-likelihoods and the same word on being the greedy answer."""
    if isinstance(ours, list):
        for own, their in zip(ours, theirs, strict=True):
            same_answers(own, their)
    elif isinstance(ours, tuple):  # JSON made texts of numbers
        assert ours[0] == pytest.approx(float(theirs[0]), abs=ATOL_NATS)
        assert str(ours[1]) == str(theirs[1])
    elif isinstance(ours, float):  # of a whole text
        assert ours == pytest.approx(float(theirs), rel=RTOL_TEXT)
    else:
        assert ours == theirs


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_group_and_text(folder: Path, data: Path) -> None:
    """A group of two subjects, and texts longer than the model's context to be scored whole."""
    group = {
        "group": "parity_mmlu",
        "task": [f"mmlu_{subject}" for subject in SUBJECTS],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
    }
    (folder / "parity_mmlu.yaml").write_text(yaml.safe_dump(group))
    text = {
        "task": "parity_text",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data / "texts.jsonl")}},
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}],
    }
    (folder / "parity_text.yaml").write_text(yaml.safe_dump(text))


def write_task(folder: Path, own: Path, splits: Mapping[str, Path], **more: Any) -> None:
    """lm-eval's own task over local files, as a person would write it for the harness."""
    name = next(line for line in own.read_text().splitlines() if line.strip('"').startswith("task")).partition(":")[2]
    name = name.strip(' "')
    content = {
        "include": str(own),
        "task": name,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(path) for split, path in splits.items()}},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content | more))
