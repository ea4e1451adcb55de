"""vLLM behind the engine seam: started once, its weights exchanged while it runs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from overedit.editing.model.tokenization import encode_pairs
from overedit.editing.trajectory.checkpoint import read_checkpoint
from overedit.tasks.engine.base import NO_TOKEN, Generation, Score, SwapReport
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.engine.tokenization import check_lengths, encode, eos_ids, generation, windows
from overedit.tasks.engine.vllm_environment import (
    kv_cache_bytes,
    register_in_process,
    starting_vllm,
    vllm_language_model,
)
from overedit.tasks.engine.vllm_weights import exchange
from overedit.tasks.models.base_weights import BaseWeights
from overedit.tasks.models.loading import context_length
from overedit.tasks.models.reference import ModelReference

logger = logging.getLogger(__name__)


class VLLMEngine:
    """One vLLM model in this process, which is lm-eval's model too.

    Args:
        model: Which model; the dtype is the options'.
        options: How it is started.

    Raises:
        ValueError: There is no such model, or it has no safetensors weights, or vLLM cannot run it.
    """

    kind = "vllm"

    def __init__(self, model: ModelReference, options: EngineOptions) -> None:
        begun = time.perf_counter()
        self._base = BaseWeights(model)
        with starting_vllm() as on_cpu:
            from overedit.tasks.engine.lm_eval_adapters import without_progress_bars

            language_model = without_progress_bars(vllm_language_model())
            if on_cpu:
                register_in_process(list(self._base.config.architectures or ()))
            self._lm = language_model(str(self._base.folder), **_arguments(self._base, options, on_cpu))
        self._llm = self._lm.model
        self._tokenizer = self._lm.tokenizer
        self._room: int = self._llm.llm_engine.model_config.max_model_len
        self._ends = eos_ids(self._tokenizer, self._base.folder)
        self._edited: set[str] = set()
        self.start_seconds = time.perf_counter() - begun
        logger.info("vLLM started with %s in %.1f s", model.name, self.start_seconds)

    def generate(self, prompts: Sequence[str], *, max_tokens: int, stop: Sequence[str] = ()) -> list[Generation]:
        """Greedy continuations of the prompts, in their order."""
        from vllm import SamplingParams

        ids = encode(self._tokenizer, prompts)
        check_lengths(ids, self._room - 1, prompts)
        # an empty cache to begin with, so the same question always gets the same bits for an answer
        self._llm.reset_prefix_cache()
        parameters = SamplingParams(
            temperature=0,
            max_tokens=max_tokens,
            stop=list(stop) or None,
            stop_token_ids=self._ends,
            detokenize=bool(stop),
        )
        outputs = self._ask(ids, parameters)
        return [generation(self._tokenizer, out.outputs[0].token_ids, stop=stop, ends=self._ends) for out in outputs]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Teacher-forced scores of (prompt, continuation) pairs; a blank joins them unless one is there."""
        split = encode_pairs(self._tokenizer, pairs)
        ids = [[*prompt, *target] for prompt, target in split]
        check_lengths(ids, self._room - 1, [prompt for prompt, _ in pairs])
        read = self._read(ids)
        return [
            _score(*both, len(prompt)) for both, (prompt, _) in zip(zip(ids, read, strict=True), split, strict=True)
        ]

    def token_nlls(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """NLL of each token of each text after its first, for perplexity; see `Engine.token_nlls`."""
        pieces = [windows(ids, self._room - 1) for ids in encode(self._tokenizer, texts)]
        read = iter(self._read([piece for text in pieces for piece in text]))
        return [
            tuple(_nll(place, token) for piece in text for token, place in zip(piece[1:], next(read)[1:], strict=True))
            for text in pieces
        ]

    def swap(self, checkpoint: Path | None) -> SwapReport:
        """Write a checkpoint's edited tensors into the running engine, None the base's; see `Engine.swap`."""
        begun = time.perf_counter()
        wanted = {} if checkpoint is None else read_checkpoint(checkpoint).tensors()
        edited = self._base.renamed(wanted, checkpoint) if checkpoint else {}
        tensors = self._base.read(self._edited - set(edited)) | edited
        self._edited |= set(edited)  # before anything is written: a swap that breaks off is undone by the next
        done = self._llm.collective_rpc(exchange, args=(tensors, self._base))[0] if tensors else None
        self._llm.reset_prefix_cache()
        found = done.found if done else {}
        wrong = [name for name, same in found.items() if same is False]
        if wrong:
            source = checkpoint or "the base"
            raise RuntimeError(f"vLLM holds other values than {source} after the swap: {', '.join(wrong)}")
        self._edited = set(edited)
        verified = all(same is True for same in found.values())
        return SwapReport(time.perf_counter() - begun, done.bytes_written if done else 0, verified)

    def language_model(self) -> Any:
        """The same running model as an lm-eval `LM`."""
        self._llm.reset_prefix_cache()
        return self._lm

    def close(self) -> None:
        """Free the model; another engine can be started in this process afterwards."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        del self._lm, self._llm
        cleanup_dist_env_and_memory()

    def _read(self, ids: Sequence[Sequence[int]]) -> list[Any]:
        """For each sequence and each of its places, what vLLM says of the token there (None at the first)."""
        from vllm import SamplingParams

        parameters = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1, detokenize=False)
        return [output.prompt_logprobs for output in self._ask(ids, parameters)]

    def _ask(self, ids: Sequence[Sequence[int]], parameters: Any) -> list[Any]:
        prompts = [{"prompt_token_ids": list(sequence)} for sequence in ids]
        return list(self._llm.generate(prompts, parameters, use_tqdm=False)) if prompts else []


def _arguments(base: BaseWeights, options: EngineOptions, on_cpu: bool) -> dict[str, Any]:
    """What lm-eval's vLLM model is started with."""
    dtype = base.dtype if options.dtype == "auto" else getattr(torch, options.dtype)
    arguments = {
        "dtype": str(dtype).removeprefix("torch."),
        "seed": options.seed,
        "max_model_len": options.max_model_len,
        "max_num_seqs": options.max_num_seqs,
        "enforce_eager": on_cpu if options.enforce_eager is None else options.enforce_eager,
        "trust_remote_code": False,
        "use_tqdm_on_load": False,
        "batch_size": 1_000_000,  # vLLM makes its own batches; "auto" would bring a progress bar
    }
    if options.kv_cache_gib is not None:
        arguments["kv_cache_memory_bytes"] = int(options.kv_cache_gib * 2**30)
    elif on_cpu:
        context = options.max_model_len or context_length(base.config)
        arguments["kv_cache_memory_bytes"] = kv_cache_bytes(base.config, dtype, context)
    return arguments | ({} if on_cpu else {"gpu_memory_utilization": options.gpu_memory_utilization})


def _nll(place: Any, token: int) -> float:
    return -float(place[token].logprob)


def _score(ids: Sequence[int], read: Sequence[Any], num_prompt: int) -> Score:
    target = tuple(ids[num_prompt:])
    places = read[num_prompt:]
    nlls = tuple(_nll(place, token) for place, token in zip(places, target, strict=True))
    return Score(nlls, tuple(map(_greedy, places, nlls)), target)


def _greedy(place: Mapping[int, Any], nll: float) -> int:
    """The likeliest token: vLLM tells of the one that is there and of the first; a tie goes to the lower id."""
    return NO_TOKEN if math.isnan(nll) else min(place, key=lambda token: (-place[token].logprob, token))
