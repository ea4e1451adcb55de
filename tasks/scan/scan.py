"""The scan for hard cases: single edits that break a model ("The Butterfly Effect of Model Editing", arXiv 2402.09656).

Every request is edited alone, on the pristine model, as the first edit of a trajectory would be. With that one edit
applied, perplexity is measured as in the paper: the mean over texts of exp(mean NLL of the text's tokens). Then the
weights are restored, bit for bit. Rows are stored in parts, so a stopped scan continues at the part it was in.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict

from overedit.editing.methods.base import MethodConfig, State
from overedit.editing.methods.locate_then_edit.contexts import STATE_KEY
from overedit.editing.methods.registry import METHODS, AnyMethod
from overedit.editing.metrics import exact_sequence
from overedit.editing.model.memory import OomHalver
from overedit.editing.model.tokenization import encode_pairs, encode_texts
from overedit.editing.model.weights import WeightUpdate, applied, read_tensors
from overedit.editing.requests import EditRequest
from overedit.editing.storage.checksums import digest
from overedit.editing.trajectory.interruption import StoppedError, stop_on_signals
from overedit.editing.trajectory.records import Norms
from overedit.editing.trajectory.settings import turn_seed
from overedit.tasks.data.corpus import texts_digest
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.editing_job.job import inputs_key, method_inputs
from overedit.tasks.engine.tokenization import windows
from overedit.tasks.engine.transformers_batches import LocalModel
from overedit.tasks.models.loading import LoadedModel, editing_threads, load_model, max_input_tokens
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.runs.run import TrajectoryPoint
from overedit.tasks.system.gpu_locks import gpu_lock
from overedit.tasks.system.progress import ShowProgress, unseen
from overedit.tasks.system.stage_key import stage_key
from overedit.tasks.system.untrusted import error_message

PART = 50
"""Requests per stored file; a stopped scan repeats at most this many."""
_BATCH_TOKENS = {"cpu": 1024, "cuda": 16_384}  # on two cores 4,096 take 3.5 times as long as 1,024

Edit = Callable[[EditRequest], WeightUpdate]
"""Edits one request on the pristine model, which is bit-identical afterwards, and returns the update."""


class ScanJob(BaseModel):
    """Everything that determines a scan's rows, except the requests and the texts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelReference
    method: AnyMethod
    seed: int = 0

    def key(self, texts: Sequence[str]) -> str:
        """Digest of the base weights, texts, configuration and code that determine a request's row."""
        return stage_key(
            sys.modules[METHODS[self.method.method].config.__module__],
            sys.modules[__name__],
            weights=self.model.digest,
            dtype=self.model.dtype,
            method=self.method.model_dump(mode="json"),
            seed=self.seed,
            texts=texts_digest(texts),
            **inputs_key(self.method, self.model.digest),
        )


def run_scan(
    job: ScanJob,
    requests: RequestStore,
    texts: Sequence[str],
    point: TrajectoryPoint,
    *,
    label: str,
    show: ShowProgress = unseen,
) -> None:
    """Scan requests and store a row for each in the table `scans`; parts that are stored already are kept.

    Args:
        job: Model and method.
        requests: The requests to scan.
        texts: The texts of the perplexity; at least one has two tokens.
        point: The point of the rows; its edit count is 1.
        label: The method's name in tables.
        show: Shows the progress.

    Raises:
        ValueError: No text has two tokens, or a request does not fit the method.
        StoppedError: A stop was requested; the same call continues.
    """
    code = job.key(texts)
    parts = {first: requests[first : first + PART] for first in range(0, len(requests), PART)}
    keys = {first: digest([code, [r.model_dump(mode="json") for r in part]]) for first, part in parts.items()}
    missing = [first for first in parts if not point.reuse("scans", keys[first], part=str(first + 1))]
    if not missing:
        return
    if not torch.cuda.is_available():
        torch.set_num_threads(editing_threads())
    with gpu_lock(), stop_on_signals() as stop_asked:
        loaded = load_model(job.model)
        edit = editing_alone(
            loaded, job.method, seed=job.seed, inputs=method_inputs(job.method, loaded, job.model.digest, show)
        )
        probe = PerplexityProbe.of(loaded, texts)
        with show(f"Scanning with {label}", "edits") as progress:
            for first in missing:
                rows = []
                for row in scan(loaded, parts[first], probe, edit, first=first + 1):
                    rows.append(row | {"label": label})
                    progress(first + len(rows), len(requests))
                    if stop_asked() and len(rows) < len(parts[first]):
                        raise StoppedError(f"stopped after {first} edits were scanned and stored, as asked")
                point.store("scans", rows, key=keys[first], part=str(first + 1))


def editing_alone(loaded: LoadedModel, method: MethodConfig, *, seed: int, inputs: dict[str, Any]) -> Edit:
    """Make a function that edits one request, as the first turn of a trajectory would with that request alone.

    The contexts that a method samples depend on the pristine model and the seed only, so they are sampled once for all
    requests. No other state is passed from one request to the next.
    """
    entry = METHODS[method.method]
    contexts: State = {}

    def edit(request: EditRequest) -> WeightUpdate:
        result = entry.function(*loaded, [request], method, dict(contexts), seed=turn_seed(seed, 0, 1), **inputs)
        contexts.update({name: value for name, value in result.state.items() if name == STATE_KEY})
        return result.update

    return edit


class Measured(NamedTuple):
    """A model's perplexities on the texts, and whether it gives a request's new answer."""

    perplexity: float
    """The mean of the texts' perplexities (arXiv 2402.09656); infinite where one is not finite."""
    token_perplexity: float
    """exp(mean NLL of all tokens of all texts); likewise."""
    learned: bool | None
    """Whether each token of the answer is the most likely one given those before; None without a request."""


class PerplexityProbe(NamedTuple):
    """A model and the tokenized texts on which its perplexity is measured."""

    local: LocalModel
    pieces: list[list[list[int]]]
    """The windows of each text, as token ids."""

    @classmethod
    def of(cls, loaded: LoadedModel, texts: Sequence[str]) -> PerplexityProbe:
        """Make a probe of a model; it measures the weights that the model has at the time of the call.

        Raises:
            ValueError: No text has two tokens.
        """
        model, tokenizer = loaded
        max_length = max_input_tokens(model.config)
        local = LocalModel(model, tokenizer, max_length, [], _BATCH_TOKENS[model.device.type], OomHalver())
        pieces = [found for ids in encode_texts(tokenizer, texts) if (found := windows(ids, max_length - 1))]
        if not pieces:
            raise ValueError("perplexity.corpus: no text has two tokens, so there is no perplexity")
        return cls(local, pieces)

    def read(self, request: EditRequest | None = None) -> Measured:
        """Measure the texts and, in the same batches, a request's prompt and new answer."""
        asked = encode_pairs(self.local.tokenizer, [(request.prompt, request.target_new)] if request else [])
        ids = [piece for text in self.pieces for piece in text] + [[*prompt, *target] for prompt, target in asked]
        readings = iter(self.local.read_all(ids))
        nlls = [[nll for _ in text for nll in next(readings).nlls] for text in self.pieces]
        learned = [exact_sequence(next(readings).greedy_ids[len(prompt) - 1 :], target) for prompt, target in asked]
        return Measured(
            perplexity=sum(perplexity(text) for text in nlls) / len(nlls),
            token_perplexity=perplexity([nll for text in nlls for nll in text]),
            learned=learned[0] if learned else None,
        )


def scan(
    loaded: LoadedModel, requests: Sequence[EditRequest], probe: PerplexityProbe, edit: Edit, *, first: int = 1
) -> Iterator[dict[str, Any]]:
    """Edit each request alone and yield its row of the table `scans`, without identity and label.

    An edit whose equations cannot be solved is a result; its row has the reason instead of measures.

    Args:
        loaded: The pristine model; its weights are restored after each row, bit for bit.
        requests: In their order.
        probe: Measures perplexity.
        edit: The method.
        first: The position of the first request.

    Raises:
        ValueError: The pristine model's perplexity is not finite, or a request does not fit the method.
    """
    base = probe.read()
    if not math.isfinite(base.perplexity):
        raise ValueError("perplexity.corpus: the pristine model's own perplexity of it is not finite")
    for position, request in enumerate(requests, first):
        row = {"position": position, **{name: getattr(request, name) for name in _OF_REQUEST}}
        begun = time.perf_counter()
        try:
            update = edit(request)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            yield row | {"error": error_message(error, 500), "seconds": time.perf_counter() - begun}
            continue
        before = read_tensors(loaded.model, update)
        with applied(loaded.model, update):
            after = read_tensors(loaded.model, update)
            measured = probe.read(request)
        norm = math.hypot(*(Norms.of(after[name], before[name]).update for name in before))
        yield (
            row
            | measured._asdict()
            | {
                "base_perplexity": base.perplexity,
                "base_token_perplexity": base.token_perplexity,
                "ratio": measured.perplexity / base.perplexity,
                "update_norm": norm if math.isfinite(norm) else math.inf,
                "seconds": time.perf_counter() - begun,
            }
        )


_OF_REQUEST = ("case_id", "prompt", "subject", "target_new")


def perplexity(nlls: Sequence[float]) -> float:
    """exp(mean NLL), with NLLs in nats of at least one token; infinite where it is not finite or overflows."""
    mean = math.fsum(nlls) / len(nlls) if all(map(math.isfinite, nlls)) else math.inf
    return math.exp(mean) if mean < _LARGEST_EXPONENT else math.inf


_LARGEST_EXPONENT = 709.0  # exp of it is still a float
