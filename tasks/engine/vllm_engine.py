"""The engine that runs vLLM in this process: started once, its weights exchanged while it runs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from overedit.editing.model.tokenization import encode_pairs, encode_texts
from overedit.editing.trajectory.checkpoint import TENSOR_FILES, read_checkpoint
from overedit.tasks.engine.base import NO_TOKEN, Generation, Score, SwapReport
from overedit.tasks.engine.options import EngineOptions, check_devices
from overedit.tasks.engine.tokenization import check_lengths, eos_ids, generation, windows
from overedit.tasks.engine.vllm_comparison import HELD, OTHER_VALUES
from overedit.tasks.engine.vllm_environment import (
    kv_cache_bytes,
    register_in_process,
    starting_vllm,
    vllm_language_model,
)
from overedit.tasks.engine.vllm_weights import WORKER_EXTENSION, StoredTensor
from overedit.tasks.models.base_weights import BaseWeights
from overedit.tasks.models.beside_weights import check_weights_only
from overedit.tasks.models.loading import max_input_tokens
from overedit.tasks.models.reference import ModelReference

logger = logging.getLogger(__name__)


class VLLMEngine:
    """One vLLM model, in this process or split over workers of its own; it is lm-eval's model too.

    Args:
        model: Which model; its dtype is replaced by the one of the options.
        options: How the engine is started.

    Raises:
        ValueError: There is no such model, or it has no safetensors weights, or vLLM cannot run it.
    """

    kind = "vllm"

    def __init__(self, model: ModelReference, options: EngineOptions) -> None:
        begun = time.perf_counter()
        self._base = BaseWeights(model)
        with starting_vllm(options.workers) as on_cpu:
            from overedit.tasks.engine.lm_eval_adapters import without_progress_bars

            language_model = without_progress_bars(vllm_language_model())
            check_devices(options, 0 if on_cpu else torch.cuda.device_count(), self._base.config)
            if on_cpu:
                register_in_process(list(self._base.config.architectures or ()))
            self._lm = language_model(str(self._base.folder), **_arguments(self._base, options, on_cpu))
        self._llm = self._lm.model
        self._modules: list[dict[str, str]] = self._llm.collective_rpc("overedit_modules", args=(self._base.names(),))
        self._tokenizer = self._lm.tokenizer
        self._max_length: int = self._llm.llm_engine.model_config.max_model_len
        self._ends = eos_ids(self._tokenizer, self._base.folder)
        self._edited: set[str] = set()
        self.start_seconds = time.perf_counter() - begun
        logger.info("vLLM started with %s in %.1f s", model.name, self.start_seconds)

    def generate(self, prompts: Sequence[str], *, max_tokens: int, stop: Sequence[str] = ()) -> list[Generation]:
        """Continue prompts greedily; see `Engine.generate`."""
        from vllm import SamplingParams

        ids = encode_texts(self._tokenizer, prompts)
        check_lengths(ids, self._max_length - 1, prompts)
        # with an empty cache the same prompts always get bit-identical answers
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
        """Score (prompt, continuation) pairs with teacher forcing; see `Engine.score`."""
        split = encode_pairs(self._tokenizer, pairs)
        ids = [[*prompt, *target] for prompt, target in split]
        check_lengths(ids, self._max_length - 1, [prompt for prompt, _ in pairs])
        read = self._read(ids)
        return [
            _score(sequence, logprobs, len(prompt))
            for sequence, logprobs, (prompt, _) in zip(ids, read, split, strict=True)
        ]

    def token_nlls(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """Compute the NLL of each token of each text after its first; see `Engine.token_nlls`."""
        pieces = [windows(ids, self._max_length - 1) for ids in encode_texts(self._tokenizer, texts)]
        read = iter(self._read([piece for text in pieces for piece in text]))
        return [
            tuple(
                _nll(logprobs, token) for ids in text for token, logprobs in zip(ids[1:], next(read)[1:], strict=True)
            )
            for text in pieces
        ]

    def swap(self, checkpoint: Path | None) -> SwapReport:
        """Write a checkpoint's edited tensors into the running model; see `Engine.swap`."""
        begun = time.perf_counter()
        edited = {} if checkpoint is None else self._stored(checkpoint)
        base = {name: self._stored_base(name) for name in self._edited - set(edited)}
        written = self._with_neighbours(base | edited)
        self._edited |= set(edited)  # before anything is written: the next swap undoes one that failed halfway
        sizes: dict[str, int] = {}
        for of_one_rank in self._on_each_rank("overedit_write", written):
            sizes |= of_one_rank
        self._llm.reset_prefix_cache()
        not_compared = self._compare(written, checkpoint)
        self._edited = set(edited)
        return SwapReport(time.perf_counter() - begun, sum(sizes.values()), not not_compared, not_compared)

    def language_model(self) -> Any:
        """The same running model as an lm-eval `LM`."""
        self._llm.reset_prefix_cache()
        return self._lm

    def close(self) -> None:
        """Free the model; this process can start another engine afterwards."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        del self._lm, self._llm
        cleanup_dist_env_and_memory()

    def _stored(self, checkpoint: Path) -> dict[str, StoredTensor]:
        """Where a checkpoint's tensors are, by their names on disk, once its checksums and shapes are right."""
        file = checkpoint / TENSOR_FILES[0]
        whole = read_checkpoint(checkpoint)
        check_weights_only(whole)
        tensors = whole.tensors()
        self._base.renamed(tensors, checkpoint)
        on_disk = {name: self._base.on_disk(name) or name for name in tensors}
        return {
            renamed: StoredTensor(str(file.absolute()), name, renamed in self._base.stored_in_out)
            for name, renamed in on_disk.items()
        }

    def _stored_base(self, name: str) -> StoredTensor:
        return StoredTensor(str(self._base.file_of(name)), name, name in self._base.stored_in_out)

    def _with_neighbours(self, stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
        """Add the base's tensors that share a module of vLLM with a given one: vLLM reloads whole modules."""
        if lost := [name for name in stored if not any(name in modules for modules in self._modules)]:
            architecture = ", ".join(self._base.config.architectures or ())
            raise ValueError(
                f"vLLM's {architecture} has no module for {', '.join(lost)}; set engine.kind to transformers"
            )
        together: set[str] = set()
        for modules in self._modules:
            touched = {modules[name] for name in stored if name in modules}
            together |= {name for name, module in modules.items() if module in touched}
        return {name: stored.get(name) or self._stored_base(name) for name in sorted(together)}

    def _compare(self, stored: Mapping[str, StoredTensor], checkpoint: Path | None) -> tuple[str, ...]:
        """Compare what each rank holds with its part of each tensor -> what could not be compared, and why.

        Raises:
            RuntimeError: A rank holds other values, or has them in other places.
        """
        wrong, unknown = [], []
        for rank, verdicts in enumerate(self._on_each_rank("overedit_compare", stored)):
            for name, verdict in sorted(verdicts.items()):
                if verdict == OTHER_VALUES:
                    wrong.append(f"rank {rank}: {name}")
                elif verdict != HELD:
                    unknown.append(f"rank {rank}: {name}: {verdict}")
        if wrong:
            raise RuntimeError(f"vLLM holds other values than {checkpoint or 'the base'} has: {'; '.join(wrong)}")
        return tuple(unknown)

    def _on_each_rank(self, method: str, stored: Mapping[str, StoredTensor]) -> list[dict[str, Any]]:
        """Call a method of `SwapExtension` in each worker, with plain values -> the answers, by rank."""
        plain = {name: list(tensor) for name, tensor in stored.items()}
        return list(self._llm.collective_rpc(method, args=(plain,))) if plain else []

    def _read(self, ids: Sequence[Sequence[int]]) -> list[Any]:
        """VLLM's log-probabilities at each position of each sequence (None at the first)."""
        from vllm import SamplingParams

        parameters = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1, detokenize=False)
        return [output.prompt_logprobs for output in self._ask(ids, parameters)]

    def _ask(self, ids: Sequence[Sequence[int]], parameters: Any) -> list[Any]:
        prompts = [{"prompt_token_ids": list(sequence)} for sequence in ids]
        return list(self._llm.generate(prompts, parameters, use_tqdm=False)) if prompts else []


def _arguments(base: BaseWeights, options: EngineOptions, on_cpu: bool) -> dict[str, Any]:
    """Arguments of lm-eval's vLLM model."""
    dtype = base.dtype if options.dtype == "auto" else getattr(torch, options.dtype)
    arguments = {
        "dtype": str(dtype).removeprefix("torch."),
        "seed": options.seed,
        "max_model_len": options.max_model_len,
        "max_num_seqs": options.max_num_seqs,
        "enforce_eager": on_cpu if options.enforce_eager is None else options.enforce_eager,
        "trust_remote_code": False,
        "use_tqdm_on_load": False,
        "batch_size": 1_000_000,  # vLLM makes its own batches; "auto" would show a progress bar
        "tensor_parallel_size": options.tensor_parallel,
        "pipeline_parallel_size": options.pipeline_parallel,
        "worker_extension_cls": WORKER_EXTENSION,
    }
    if options.kv_cache_gib is not None:
        arguments["kv_cache_memory_bytes"] = int(options.kv_cache_gib * 2**30)
    elif on_cpu:
        context = options.max_model_len or max_input_tokens(base.config)
        arguments["kv_cache_memory_bytes"] = kv_cache_bytes(base.config, dtype, context)
    return arguments | ({} if on_cpu else {"gpu_memory_utilization": options.gpu_memory_utilization})


def _nll(logprobs: Any, token: int) -> float:
    return -float(logprobs[token].logprob)


def _score(ids: Sequence[int], read: Sequence[Any], num_prompt: int) -> Score:
    target = tuple(ids[num_prompt:])
    positions = read[num_prompt:]
    nlls = tuple(_nll(logprobs, token) for logprobs, token in zip(positions, target, strict=True))
    return Score(nlls, tuple(map(_greedy, positions, nlls)), target)


def _greedy(logprobs: Mapping[int, Any], nll: float) -> int:
    """The most likely token: vLLM returns the given one and the top one; a tie goes to the lower id."""
    return NO_TOKEN if math.isnan(nll) else min(logprobs, key=lambda token: (-logprobs[token].logprob, token))
