"""Editing at the shapes of large models, without their weights: memory, seconds, and sizes of checkpoints.

Writes a model with random weights (bfloat16) into a folder, shard by shard, and takes each measurement in a process of
its own: `peak` is the most resident memory, pages of the weight files included, which the system takes back when it
needs them; `anonymous` is the most that it cannot take back. `8b` is the shape of Llama-3-8B (needs 15 GiB of disk),
`72b-2` that of Qwen2.5-72B with two of its 80 layers (8 GiB).

    python tests/benchmarks/large_shapes.py FOLDER [--shape 8b|72b-2] [--only STEP ...] [--requests N] [--last-layer]

The folder is removed at the end, unless `--keep` is given; an existing model in it is used again. Time depends on the
weights being in the page cache or not. `--last-layer` edits the last layer in place of the published ones: on a
processor without bfloat16 instructions torch takes minutes for the backward pass through one layer of such a size.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from transformers import PreTrainedConfig

from overedit.editing.methods.base import MethodConfig
from overedit.editing.methods.locate_then_edit.keys import SubjectActivations
from overedit.editing.methods.locate_then_edit.subjects import SLOT, encode_prompt_sets
from overedit.editing.methods.locate_then_edit.value_options import ValueOptions
from overedit.editing.methods.locate_then_edit.values import optimize_values
from overedit.editing.methods.locft_bf import LocftBf
from overedit.editing.methods.memit import PRESETS as MEMIT
from overedit.editing.methods.ultraedit import PRESETS as ULTRAEDIT
from overedit.editing.methods.ultraedit import UltraEdit
from overedit.editing.requests import EditRequest
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.editing_job.job import EditingJob, run_editing_job
from overedit.tasks.models.loading import LoadedModel, load_model
from overedit.tasks.models.reference import ModelReference
from tests.support.published_shapes import llama_3_8b, qwen2_5_72b
from tests.support.random_shards import write_random_model

LLAMA_3_8B = "meta-llama/Meta-Llama-3-8B-Instruct"


class Shape(NamedTuple):
    """A model's shape, and what is edited in it."""

    config: PreTrainedConfig
    locft_site: str
    ultraedit: UltraEdit
    memit_layers: tuple[int, ...]


SHAPES = {
    "8b": Shape(
        llama_3_8b(),
        "22.down_proj",
        ULTRAEDIT[LLAMA_3_8B],
        MEMIT[LLAMA_3_8B].layers,
    ),
    "72b-2": Shape(
        qwen2_5_72b(layers=2),
        "1.down_proj",
        UltraEdit(sites=("1.gate_proj", "1.up_proj")),
        (0, 1),
    ),
}


def at_last_layer(shape: Shape) -> Shape:
    """The same projections of the last layer: the backward pass goes through the head and this layer alone."""
    last = shape.config.num_hidden_layers - 1
    parts = dict.fromkeys(site.partition(".")[2] for site in shape.ultraedit.sites)
    ultraedit = shape.ultraedit.model_copy(update={"sites": tuple(f"{last}.{part}" for part in parts)})
    return Shape(shape.config, f"{last}.down_proj", ultraedit, (*shape.memit_layers[:-1], last))


def requests(count: int) -> list[EditRequest]:
    """Short requests: with the byte tokenizer, some ten tokens each, target and end included."""
    names = ("Ann", "Bob", "Cid", "Dee", "Eli", "Fay", "Gus", "Hal", "Ida", "Joe")
    return [
        EditRequest(case_id=str(n), prompt=f"{names[n % 10]}{n // 10 or ''} is", subject=names[n % 10], target_new="ok")
        for n in range(count)
    ]


class Memory:
    """Samples the memory of this process in a block, every 20 ms."""

    def __enter__(self) -> Memory:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is that of the block
        self.anonymous, self._ended = 0, Event()
        self._thread = Thread(target=self._sample, daemon=True)
        self._begun = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._begun
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(0.02):
            self.anonymous = max(self.anonymous, in_status("RssAnon"))

    def row(self) -> dict[str, float]:
        """Seconds, and GiB."""
        return {
            "seconds": round(self.seconds, 1),
            "peak": round(in_status("VmHWM") / 2**30, 2),
            "anonymous": round(max(self.anonymous, in_status("RssAnon")) / 2**30, 2),
        }


def in_status(field: str) -> int:
    """Bytes of one line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


def reference(folder: Path) -> ModelReference:
    """The model of a folder, as it is stored."""
    return ModelReference(str(folder / "model"))


def loading(folder: Path, _: Shape, __: int) -> dict[str, Any]:
    """Load the model, and one forward pass of ten tokens."""
    before = in_status("RssAnon")
    with Memory() as loaded:
        model = load_model(reference(folder)).model
    with Memory() as passed, torch.no_grad():
        model(input_ids=torch.arange(10)[None], use_cache=False)
    more = {f"forward_{name}": value for name, value in passed.row().items()}
    return loaded.row() | {"anonymous_before": round(before / 2**30, 2)} | more


def edited(folder: Path, method: MethodConfig, count: int) -> dict[str, Any]:
    """A whole editing job: the model is loaded, edited, and a checkpoint is written."""
    model = reference(folder)
    begun = time.perf_counter()
    model.digest  # noqa: B018  read once for each model, and kept
    digesting = time.perf_counter() - begun
    store = RequestStore(requests(count))
    job = EditingJob(model=model, method=method, edit_counts=(count,), turn_size=count)
    out = folder / method.method
    with Memory() as memory:
        (checkpoint,) = run_editing_job(job, store, out)
    size = (checkpoint.folder / "weights.safetensors").stat().st_size
    state = checkpoint.folder / "state.safetensors"
    row = memory.row() | {
        "edits": count,
        "turn_seconds": round(sum(checkpoint.costs.turn_seconds), 1),
        "digest_seconds": round(digesting, 1),
        "checkpoint_bytes": size,
        "state_bytes": state.stat().st_size if state.exists() else 0,
        "log": {
            key: value for key, value in checkpoint.record.log[0].items() if key in ("steps", "rows", "tokens_computed")
        },
    }
    shutil.rmtree(out)
    return row


def locft_bf(folder: Path, shape: Shape, count: int) -> dict[str, Any]:
    """LocFT-BF: all requests in one batch, two epochs, so two steps of the optimizer."""
    config = LocftBf(site=shape.locft_site, epochs=2, stop_epoch_below=0, skip_batch_below=0)
    return edited(folder, config, min(count, 4))


def ultraedit(folder: Path, shape: Shape, count: int) -> dict[str, Any]:
    """UltraEdit: one turn at the published modules."""
    return edited(folder, shape.ultraedit, count)


def memit(folder: Path, shape: Shape, _: int) -> dict[str, Any]:
    """MEMIT: keys of one request at the first edited layer, and two of the 25 evaluations of its value."""
    loaded: LoadedModel = load_model(reference(folder))
    templates = ((SLOT,),)
    sets = encode_prompt_sets(*loaded, requests(1), templates)
    with Memory() as keys:
        SubjectActivations(loaded.model, sets, templates, 8192).keys(f"{shape.memit_layers[0]}.down_proj")
    with Memory() as values:
        optimize_values(loaded.model, f"{shape.memit_layers[-1]}.layer", sets, ValueOptions(num_steps=2))
    more = {f"value_{name}": value for name, value in values.row().items()}
    return keys.row() | more | {"value_extrapolated_to_25": round(values.seconds * 25 / 2, 1)}


STEPS: dict[str, Callable[[Path, Shape, int], dict[str, Any]]] = {
    "load": loading,
    "locft_bf": locft_bf,
    "ultraedit": ultraedit,
    "memit": memit,
}


def main() -> None:
    """Write the model, and run each step in a process of its own; with `--step` this is that process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet, or an earlier one of --keep")
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--only", choices=STEPS, nargs="+", default=list(STEPS))
    parser.add_argument("--requests", type=int, default=10, help="edits of UltraEdit; LocFT-BF takes at most four")
    parser.add_argument("--keep", action="store_true", help="keep the folder")
    parser.add_argument("--last-layer", action="store_true", help="edit the last layer in place of the published ones")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    shape = at_last_layer(SHAPES[given.shape]) if given.last_layer else SHAPES[given.shape]
    if given.step:
        print(json.dumps(STEPS[given.step](given.folder, shape, given.requests)), flush=True)
        return
    if not (given.folder / "model" / "model.safetensors.index.json").exists():
        with Memory() as memory:
            size = write_random_model(given.folder / "model", shape.config)
        print(json.dumps({"step": "write", "bytes": size} | memory.row()), flush=True)
    own = [sys.executable, __file__, str(given.folder), "--shape", given.shape, "--requests", str(given.requests)]
    own += ["--last-layer"] if given.last_layer else []
    environment = os.environ | {"OVEREDIT_CACHE": str(given.folder / "cache")}
    for step in given.only:
        done = subprocess.run([*own, "--step", step], env=environment, check=True, stdout=subprocess.PIPE, text=True)
        print(json.dumps({"step": step} | json.loads(done.stdout.splitlines()[-1])), flush=True)
    if not given.keep:
        shutil.rmtree(given.folder)


if __name__ == "__main__":
    main()
