"""The engine that runs transformers in this process: for machines without vLLM, and for edits beside the weights."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from overedit.editing.model.memory import OomHalver
from overedit.editing.model.routing import Router
from overedit.editing.model.tokenization import encode_pairs, encode_texts
from overedit.editing.model.weights import checksum, read_tensors, write_tensors
from overedit.editing.trajectory.checkpoint import read_checkpoint
from overedit.tasks.engine.base import Generation, Score, SwapReport
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.engine.tokenization import check_lengths, eos_ids, generation, windows
from overedit.tasks.engine.transformers_batches import LocalModel
from overedit.tasks.models.base_weights import BaseWeights, check_fit
from overedit.tasks.models.beside_weights import router_of
from overedit.tasks.models.loading import LoadedModel, load_model, max_input_tokens
from overedit.tasks.models.reference import ModelReference

logger = logging.getLogger(__name__)


class TransformersEngine:
    """A transformers model in this process, which is lm-eval's model too.

    Args:
        model: Which model; its dtype is replaced by the one of the options.
        options: How the engine is started; those of vLLM are ignored.

    Raises:
        ValueError: There is no such model, or it has no safetensors weights.
    """

    kind = "transformers"

    def __init__(self, model: ModelReference, options: EngineOptions) -> None:
        begun = time.perf_counter()
        self._base = BaseWeights(model)
        loaded, tokenizer = load_model(replace(model, dtype=options.dtype))
        # the published sampling settings and penalties do not apply to greedy decoding
        loaded.generation_config = GenerationConfig()
        context = max_input_tokens(self._base.config)
        self._max_length = min(options.max_model_len or context, context)
        self._ends = eos_ids(tokenizer, self._base.folder)
        self._local = LocalModel(loaded, tokenizer, self._max_length, self._ends, options.batch_tokens, OomHalver())
        self._pristine: dict[str, torch.Tensor] = {}
        self.start_seconds = time.perf_counter() - begun
        logger.info("transformers started with %s in %.1f s", model.name, self.start_seconds)

    @property
    def loaded(self) -> LoadedModel:
        """The model in memory. A caller that edits it restores its weights before the next `swap`."""
        return LoadedModel(self._local.model, self._local.tokenizer)

    def generate(self, prompts: Sequence[str], *, max_tokens: int, stop: Sequence[str] = ()) -> list[Generation]:
        """Continue prompts greedily; see `Engine.generate`."""
        ids = encode_texts(self._local.tokenizer, prompts)
        check_lengths(ids, self._max_length - 1, prompts)
        answers = self._local.continue_all(ids, max_tokens=max_tokens, stop=stop)
        return [generation(self._local.tokenizer, new, stop=stop, ends=self._ends) for new in answers]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Score (prompt, continuation) pairs with teacher forcing; see `Engine.score`."""
        split = encode_pairs(self._local.tokenizer, pairs)
        ids = [[*prompt, *target] for prompt, target in split]
        check_lengths(ids, self._max_length - 1, [prompt for prompt, _ in pairs])
        readings = self._local.read_all(ids, [len(prompt) for prompt, _ in split])
        return [
            Score(reading.nlls[len(prompt) - 1 :], reading.greedy_ids[len(prompt) - 1 :], target)
            for (prompt, target), reading in zip(split, readings, strict=True)
        ]

    def token_nlls(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """Compute the NLL of each token of each text after its first; see `Engine.token_nlls`."""
        pieces = [windows(ids, self._max_length - 1) for ids in encode_texts(self._local.tokenizer, texts)]
        readings = iter(self._local.read_all([piece for text in pieces for piece in text]))
        return [tuple(nll for _ in text for nll in next(readings).nlls) for text in pieces]

    def swap(self, checkpoint: Path | None) -> SwapReport:
        """Write a checkpoint's edited tensors into the running model; see `Engine.swap`."""
        begun = time.perf_counter()
        whole = None if checkpoint is None else read_checkpoint(checkpoint)
        edited, model = {} if whole is None else whole.tensors(), self._local.model
        router = None if whole is None else router_of(model, whole)
        if checkpoint is not None:
            check_fit(edited, checkpoint, {name: tuple(p.shape) for name, p in model.named_parameters()})
        self._pristine |= read_tensors(model, [name for name in edited if name not in self._pristine])
        tensors = {name: tensor.to(model.dtype) for name, tensor in (self._pristine | edited).items()}
        write_tensors(model, tensors)
        self.route(router)
        held = read_tensors(model, list(tensors))
        wrong = [name for name, tensor in tensors.items() if checksum(tensor) != checksum(held[name])]
        if wrong:
            raise RuntimeError(f"the model holds other values than were written: {', '.join(wrong)}")
        seconds = time.perf_counter() - begun
        return SwapReport(seconds, sum(tensor.nbytes for tensor in tensors.values()), True)

    def route(self, router: Router | None) -> None:
        """Answer with edits that are kept beside the weights; None for none.

        A prompt is what is given to `generate`, and what comes before a continuation in `score`; `token_nlls` has none.
        """
        self._local = self._local._replace(router=router)
        self.__dict__.pop("_language_model", None)  # it has the router of before

    def language_model(self) -> Any:
        """The same running model as an lm-eval `LM`."""
        return self._language_model

    def close(self) -> None:
        """Free the model."""
        self.__dict__.pop("_language_model", None)
        del self._local
        gc.collect()

    @cached_property
    def _language_model(self) -> Any:
        from overedit.tasks.engine.lm_eval_adapters import LocalLanguageModel

        return LocalLanguageModel(self._local)
