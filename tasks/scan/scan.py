"""The scan for hard cases: single edits that break a model ("The Butterfly Effect of Model Editing", arXiv 2402.09656).

Every request is edited alone, on the pristine model, as the first edit of a trajectory would be. Perplexity is measured
with that one edit in, as the paper does: the mean over texts of exp(mean NLL of the text's tokens). Then the weights
are put back, bit for bit. Rows are stored part after part, so a scan that was stopped goes on at the part it was in.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict

from overedit.editing.locate_then_edit.contexts import STATE_KEY
from overedit.editing.method import MethodConfig, State
from overedit.editing.methods import METHODS, AnyMethod
from overedit.editing.metrics import exact_sequence
from overedit.editing.model.memory import OomHalver
from overedit.editing.model.tokenization import encode_pairs, encode_texts
from overedit.editing.model.weights import WeightUpdate, applied, read_tensors
from overedit.editing.requests import EditRequest
from overedit.editing.storage.checksums import digest
from overedit.editing.trajectory.checkpoint import Norms
from overedit.editing.trajectory.interruption import StoppedError, stop_on_signals
from overedit.editing.trajectory.runner import turn_seed
from overedit.tasks.data.corpus import texts_digest
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.editing_job.job import inputs_key, method_inputs
from overedit.tasks.engine.tokenization import windows
from overedit.tasks.engine.transformers_batches import LocalModel
from overedit.tasks.models.loading import LoadedModel, context_length, editing_threads, load_model
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.runs.run import TrajectoryPoint
from overedit.tasks.system.gpu_locks import gpu_lock
from overedit.tasks.system.progress import ShowProgress, unseen
from overedit.tasks.system.stage_key import stage_key
from overedit.tasks.system.untrusted import error_message

PART = 50
"""Requests of a file: what is done again, at most, after a scan was stopped."""
_BATCH_TOKENS = {"cpu": 1024, "cuda": 16_384}  # on two cores 4,096 take 3.5 times as long as 1,024

Edit = Callable[[EditRequest], WeightUpdate]
"""One request, alone, on the pristine model, which is bit-identical afterwards."""


class ScanJob(BaseModel):
    """All that determines a scan's rows, but the requests and the texts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelReference
    method: AnyMethod
    seed: int = 0

    def key(self, texts: Sequence[str]) -> str:
        """Digest of the base weights, texts, configuration and code that make a row of a request."""
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
    place: TrajectoryPoint,
    *,
    label: str,
    show: ShowProgress = unseen,
) -> None:
    """Scan requests and store a row for each in the table `scans`; parts that are stored already are left as they are.

    Args:
        job: With which model and method.
        requests: Which ones.
        texts: On which perplexity is measured; at least one of two tokens.
        place: Whose rows they are; its edit count is 1.
        label: How tables call the method.
        show: Shows the progress.

    Raises:
        ValueError: A text's perplexity is not defined, or a request does not fit the method.
        StoppedError: A stop was asked for; the same call continues.
    """
    code = job.key(texts)
    parts = {first: requests[first : first + PART] for first in range(0, len(requests), PART)}
    keys = {first: digest([code, [r.model_dump(mode="json") for r in part]]) for first, part in parts.items()}
    missing = [first for first in parts if not place.holds("scans", keys[first], part=str(first + 1))]
    if not missing:
        return
    if not torch.cuda.is_available():
        torch.set_num_threads(editing_threads())
    with gpu_lock(), stop_on_signals() as stop_asked:
        loaded = load_model(job.model)
        edit = editing_alone(
            loaded, job.method, seed=job.seed, inputs=method_inputs(job.method, loaded, job.model.digest, show)
        )
        gauge = PerplexityProbe.of(loaded, texts)
        with show(f"Scanning with {label}", "edits") as progress:
            for first in missing:
                rows = []
                for row in scan(loaded, parts[first], gauge, edit, first=first + 1):
                    rows.append(row | {"label": label})
                    progress(first + len(rows), len(requests))
                    if stop_asked() and len(rows) < len(parts[first]):
                        raise StoppedError(f"stopped after {first} edits were scanned and stored, as asked")
                place.store("scans", rows, key=keys[first], part=str(first + 1))


def editing_alone(loaded: LoadedModel, method: MethodConfig, *, seed: int, inputs: dict[str, Any]) -> Edit:
    """A method as a function of one request: the first turn of a trajectory, which takes that request alone.

    The contexts that a method samples depend on the pristine model and the seed, so every request has the same; they
    are sampled once. Nothing else goes from one request to the next.
    """
    entry = METHODS[method.method]
    contexts: State = {}

    def edit(request: EditRequest) -> WeightUpdate:
        result = entry.function(*loaded, [request], method, dict(contexts), seed=turn_seed(seed, 0, 1), **inputs)
        contexts.update({name: value for name, value in result.state.items() if name == STATE_KEY})
        return result.update

    return edit


class Measured(NamedTuple):
    """What a model says of the texts, and whether it says a request's new answer."""

    perplexity: float
    """The mean of the texts' perplexities (arXiv 2402.09656); infinite where one is no number."""
    token_perplexity: float
    """exp(mean NLL of all tokens of all texts); likewise."""
    learned: bool | None
    """Every token of the answer is the model's own choice, given those before; None where no request was asked."""


class PerplexityProbe(NamedTuple):
    """The texts on which a model's perplexity is measured, ready to be read."""

    local: LocalModel
    pieces: list[list[list[int]]]
    """Of each text the windows, token ids."""

    @classmethod
    def of(cls, loaded: LoadedModel, texts: Sequence[str]) -> PerplexityProbe:
        """A gauge for a model, its weights whatever they are when it is read.

        Raises:
            ValueError: No text has two tokens.
        """
        model, tokenizer = loaded
        max_length = context_length(model.config)
        local = LocalModel(model, tokenizer, max_length, [], _BATCH_TOKENS[model.device.type], OomHalver())
        pieces = [found for ids in encode_texts(tokenizer, texts) if (found := windows(ids, max_length - 1))]
        if not pieces:
            raise ValueError("perplexity.corpus: no text has two tokens, so there is no perplexity")
        return cls(local, pieces)

    def read(self, request: EditRequest | None = None) -> Measured:
        """Read the texts, and a request's prompt and new answer behind them, in the same batches."""
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
    loaded: LoadedModel, requests: Sequence[EditRequest], gauge: PerplexityProbe, edit: Edit, *, first: int = 1
) -> Iterator[dict[str, Any]]:
    """Rows of the table `scans`, without identity and label: one a request, each edited alone.

    An edit whose equations cannot be solved is a result, and has its reason in place of measures.

    Args:
        loaded: The pristine model, which has its own weights again after each row, bit for bit.
        requests: In their order.
        gauge: The texts.
        edit: The method.
        first: The position of the first request.

    Raises:
        ValueError: The pristine model's perplexity is not finite, or a request does not fit the method.
    """
    base = gauge.read()
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
            measured = gauge.read(request)
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
    """The exponential of the mean NLL (nats) of at least one token; infinite where it is no number or too large."""
    mean = math.fsum(nlls) / len(nlls) if all(map(math.isfinite, nlls)) else math.inf
    return math.exp(mean) if mean < _LARGEST_EXPONENT else math.inf


_LARGEST_EXPONENT = 709.0  # of a float
