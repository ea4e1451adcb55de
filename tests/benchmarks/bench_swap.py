"""A checkpoint swap against an engine start, with greedy text equal to the transformers model's after every swap.

One vLLM engine is started, and takes checkpoints that edit one projection, part of two fused ones, and a whole layer,
in turns with the base; after the first swap to each, greedy text on 100 prompts is held against the transformers engine
with the same checkpoint. Times are wall seconds. Run as `python tests/benchmarks/bench_swap.py [--model FOLDER]`.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from overedit.tasks.engine.base import Engine
from overedit.tasks.engine.lazy import open_engine
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.models.base_weights import BaseWeights
from overedit.tasks.models.reference import ModelReference
from tests.support.checkpoints import write_tensors
from tests.support.small_model import FACTS, changed, write_small_model

MOST = 0.02
"""Of a start's time a swap may take this share."""
PROMPTS = [prompt for prompt, _ in FACTS]


def edits(base: BaseWeights) -> dict[str, list[str]]:
    """What each kind of checkpoint edits, of the model's middle layer."""
    middle = f"model.layers.{base.config.num_hidden_layers // 2}."
    return {
        "one projection": [middle + "mlp.down_proj.weight"],
        "parts of fused ones": [middle + "mlp.gate_proj.weight", middle + "self_attn.k_proj.weight"],
        "a whole layer": [name for name in base.names() if name.startswith(middle)],
    }


def checkpoints(model: str, folder: Path) -> dict[str, Path]:
    base = BaseWeights(ModelReference(model))
    found = {}
    for title, names in edits(base).items():
        weights = base.read(names)
        found[title] = write_tensors(folder / title.replace(" ", "_"), changed(weights, *names, by=0.3))
    return found


def measure(vllm: Engine, transformers: Engine, steps: dict[str, Path], repeats: int) -> dict[str, tuple[float, int]]:
    """Median seconds and bytes of a swap to each checkpoint, and of one back to the base from each."""
    seconds: dict[str, list[float]] = {title: [] for title in (*steps, "back to the base")}
    size = {}
    for turn in range(repeats):
        for title, folder in steps.items():
            for name, step in ((title, folder), ("back to the base", None)):
                report = vllm.swap(step)
                assert report.verified
                seconds[name].append(report.seconds)
                size[name] = report.bytes_written
                if turn == 0:
                    transformers.swap(step)
                    ours, theirs = (engine.generate(PROMPTS, max_tokens=16) for engine in (vllm, transformers))
                    assert ours == theirs, f"greedy text differs after {name}"
    return {title: (statistics.median(values), size[title]) for title, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a Llama-like model folder, hub name, or pocket; else a small one is trained")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if arguments.model is None:
            write_small_model(folder / "model")
        model = ModelReference(arguments.model or str(folder / "model")).locate()
        steps = checkpoints(model, folder)
        vllm, transformers = (
            open_engine(ModelReference(model), EngineOptions(kind=kind)) for kind in ("vllm", "transformers")
        )
        first_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        figures = measure(vllm, transformers, steps, arguments.repeats)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - first_memory
    print(f"model {model}, {torch.get_num_threads()} threads")
    print(f"{'engine start':<24}{vllm.start_seconds:9.3f} s")
    for title, (seconds, size) in figures.items():
        print(f"{title:<24}{seconds:9.4f} s {size / 1e6:9.2f} MB {seconds / vllm.start_seconds:8.2%} of a start")
    worst = max(seconds for seconds, _ in figures.values()) / vllm.start_seconds
    print(f"greedy text on {len(PROMPTS)} prompts equals transformers' after every swap; all swaps verified")
    print(f"memory grew by {memory / 1024:.0f} MiB over {arguments.repeats * 2 * len(steps)} swaps")
    print(f"a swap takes at most {worst:.2%} of a start (at most {MOST:.0%} wanted)")
    vllm.close()
    transformers.close()
    sys.exit(worst > MOST)


if __name__ == "__main__":
    main()
