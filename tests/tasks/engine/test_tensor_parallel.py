"""vLLM on two ranks: the swap reaches both, what each holds is compared place by place, and a run has the same rows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from overedit.tasks.engine.client import EngineClient
from overedit.tasks.engine.factory import load_in_process
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.models.reference import ModelReference
from tests.support.benchmark_run import configuration, rows_of
from tests.support.checkpoints import WriteCheckpoint
from tests.support.operation import COMMAND
from tests.support.planted_shards import compare, plant
from tests.support.small_model import FACTS, changed, write_small_model
from tests.support.tiny_llama import write_tiny_llama

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("OVEREDIT_ENGINES" not in os.environ, reason="takes minutes: make engines"),
    pytest.mark.timeout(1800),
]

PROMPTS = [prompt for prompt, _ in FACTS]
LAYER = "model.layers.0."
DOWN, OUTPUT = (LAYER + name for name in ("mlp.down_proj.weight", "self_attn.o_proj.weight"))
GATE_UP = [f"{LAYER}mlp.{name}_proj.weight" for name in ("gate", "up")]
QKV = [f"{LAYER}self_attn.{name}_proj.weight" for name in "qkv"]
EMBEDDINGS = "model.embed_tokens.weight"
SWAPPED = [[DOWN], GATE_UP, QKV, [OUTPUT], [GATE_UP[1]], [QKV[1]], [QKV[0], DOWN], [EMBEDDINGS]]
"""Row-parallel and column-parallel ones, whole and parts of fused ones, and the embeddings that are the head too."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four query heads, two key-value heads: two and one a rank."""
    folder = tmp_path_factory.mktemp("model")
    write_small_model(folder, num_attention_heads=4, num_key_value_heads=2)
    return folder


@pytest.fixture(scope="module")
def weights(model: Path) -> dict[str, torch.Tensor]:
    return load_file(model / "model.safetensors")


@pytest.fixture(scope="module")
def two_ranks(model: Path) -> Iterator[Any]:
    """In this process, so that tests can look into its workers."""
    engine = load_in_process(ModelReference(str(model)), EngineOptions(kind="vllm", tensor_parallel=2))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def transformers(model: Path) -> Iterator[Any]:
    engine = load_in_process(ModelReference(str(model)), EngineOptions(kind="transformers"))
    yield engine
    engine.close()


def test_after_each_of_twenty_swaps_tokens_are_transformers_and_each_shard_is_verified(
    two_ranks: Any, transformers: Any, weights: dict[str, torch.Tensor], checkpoint: WriteCheckpoint
) -> None:
    base = two_ranks.generate(PROMPTS, max_tokens=12)
    assert base == transformers.generate(PROMPTS, max_tokens=12)
    differ = 0
    for i in range(20):
        step = checkpoint(changed(weights, *SWAPPED[i % len(SWAPPED)], by=0.4 + 0.1 * i))
        for engine in (two_ranks, transformers):
            report = engine.swap(step)
            assert report.verified and not report.not_compared, (i, report)
        answers = two_ranks.generate(PROMPTS, max_tokens=12)
        assert answers == transformers.generate(PROMPTS, max_tokens=12), i
        differ += answers != base
    assert differ == 20
    two_ranks.swap(None), transformers.swap(None)
    assert two_ranks.generate(PROMPTS, max_tokens=12) == base


@pytest.mark.parametrize("how", ["permuted", "corrupted"])
@pytest.mark.parametrize(
    ("names", "module", "rank"),
    [
        ([DOWN], "model.layers.0.mlp.down_proj", 1),
        (GATE_UP, "model.layers.0.mlp.gate_up_proj", 0),
        (QKV, "model.layers.0.self_attn.qkv_proj", 1),
        ([EMBEDDINGS], "model.embed_tokens", 0),
        ([EMBEDDINGS], "lm_head", 1),
    ],
)
def test_a_wrong_shard_of_one_rank_is_found_with_its_rank_and_tensor(
    two_ranks: Any,
    weights: dict[str, torch.Tensor],
    checkpoint: WriteCheckpoint,
    names: list[str],
    module: str,
    rank: int,
    how: str,
) -> None:
    step = checkpoint(changed(weights, *names))
    assert two_ranks.swap(step).verified
    assert compare(two_ranks, step) == ()
    plant(two_ranks, rank, module, how)
    with pytest.raises(RuntimeError, match="holds other values than") as error:
        compare(two_ranks, step)
    wrong = names if how == "permuted" else names[:1]
    assert all(f"rank {rank}: {name}" in str(error.value) for name in wrong)
    assert str(error.value).count("rank ") == len(wrong), "the other rank holds its own"
    assert two_ranks.swap(None).verified, "the base's weights are everywhere again"


def test_its_own_process_ends_with_its_workers(model: Path, weights: dict[str, torch.Tensor]) -> None:
    before = set(Path("/dev/shm").iterdir())
    engine = EngineClient(ModelReference(str(model)), EngineOptions(kind="vllm", tensor_parallel=2))
    assert len(engine.generate(PROMPTS[:2], max_tokens=2)) == 2
    workers = [Path("/proc") / str(worker.pid) for worker in engine._workers]
    assert len(workers) == 2 and all(worker.is_dir() for worker in workers)
    engine.close()
    assert not any(worker.is_dir() and "Z" not in (worker / "stat").read_text().split()[2] for worker in workers)
    assert set(Path("/dev/shm").iterdir()) <= before, "no shared memory is left behind"


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_families_with_biases_and_transposed_weights(family: str, tmp_path: Path) -> None:
    code = "from tests.support.engine_families import main; main(2)"
    done = subprocess.run([sys.executable, "-c", code, family, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert done.stdout.splitlines()[-1] == f"{family} agrees"


def test_a_whole_run_has_the_same_rows_as_with_one_rank(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "model", head_dim=32)
    homes = [tmp_path / "one", tmp_path / "two"]
    for home, ranks in zip(homes, (1, 2), strict=True):
        config = configuration(home, tmp_path / "model", engine={"kind": "vllm", "dtype": "float32"})
        config |= {"methods": config["methods"][:1], "edit_counts": [1, 4]}
        (home / "c.yaml").write_text(yaml.safe_dump(config))
        command = [sys.executable, "-c", COMMAND, "run", "c.yaml", "--set", f"engine.tensor_parallel={ranks}"]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    one, two = (rows_of(home, "outcomes") for home in homes)
    assert len(one) == len(two) and {row["edit_count"] for row in one} == {0, 1, 4}
    for ours, theirs in zip(one, two, strict=True):
        for column, value in ours.items():
            close = isinstance(value, float) and theirs[column] == pytest.approx(value, abs=1e-4)
            assert close or column == "instance" or theirs[column] == value, (column, value, theirs[column])
    swaps = [row["verified"] for row in rows_of(homes[1], "costs") if row["stage"] == "swap"]
    assert swaps and all(swaps)
