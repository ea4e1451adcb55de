"""The running engines as lm-eval models: transformers in this process, vLLM in this process, or either in another."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.model import LM, TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from overedit.editing.model.tokenization import encode_texts
from overedit.tasks.engine.tokenization import generation
from overedit.tasks.engine.transformers_batches import LocalModel

MAX_NEW_TOKENS = 256
"""The most new tokens where a task sets no limit (lm-eval's own default)."""


class LocalLanguageModel(TemplateLM):
    """A running transformers model as an lm-eval model; greedy, without a second copy of the weights.

    lm-eval's own wrapper of transformers models needs the package accelerate, which is of no use here.

    Args:
        local: The running model.
    """

    def __init__(self, local: LocalModel) -> None:
        super().__init__()
        self._local = local
        self.tokenizer = local.tokenizer

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self._local.ends[0])

    @property
    def prefix_token_id(self) -> int:
        """The token put before a text without context."""
        first = self._local.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens."""
        return self._local.max_length

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids, with the tokenizer's own special tokens unless told otherwise."""
        options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self._local.tokenizer(string, **options)["input_ids"])

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, in nats, and whether it is what greedy decoding gives."""
        return list(super().loglikelihood(requests, disable_tqdm=True))

    def _loglikelihood_tokens(
        self, requests: Sequence[Any], *, of_prompts: bool = True, **_: Any
    ) -> list[tuple[float, bool]]:
        targets = [continuation for _, _, continuation in requests]
        most = self.max_length - 1  # as vLLM does, which generates one more token
        whole = [(context + continuation)[-most:] for _, context, continuation in requests]
        num_prompt = [len(ids) - len(target) for ids, target in zip(whole, targets, strict=True)] if of_prompts else ()
        answers = []
        for target, reading in zip(targets, self._local.read_all(whole, num_prompt), strict=True):
            size = len(target)
            answers.append((-sum(reading.nlls[-size:]), reading.greedy_ids[-size:] == tuple(target)))
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[float]:
        """Log-likelihood of each whole text, in nats."""
        texts = [self.tok_encode(request.args[0]) for request in requests]
        pieces = [[("", *piece) for piece in self._windows(ids)] for ids in texts]
        windows = [piece for text in pieces for piece in text]
        totals = iter(self._loglikelihood_tokens(windows, of_prompts=False))
        return [sum(next(totals)[0] for _ in text) for text in pieces]

    def _windows(self, ids: list[int]) -> list[tuple[list[int], list[int]]]:
        """Cut a text into (context, tokens after it) windows that fit the model, as lm-eval does for vLLM."""
        cut = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length - 2, context_len=1)
        return [make_disjoint_window(piece) for piece in cut]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """Continue each prompt greedily.

        Raises:
            ValueError: A task asks for sampling.
        """
        groups: dict[tuple[int, tuple[str, ...]], list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            groups[_generation_options(request.args[1])].append(i)
        answers: dict[int, str] = {}
        for (max_tokens, stop), group in groups.items():
            ids = encode_texts(self._local.tokenizer, [requests[i].args[0] for i in group])
            ids = [sequence[-(self.max_length - max_tokens) :] for sequence in ids]
            for i, new in zip(group, self._local.continue_all(ids, max_tokens=max_tokens, stop=stop), strict=True):
                answers[i] = generation(self._local.tokenizer, new, stop=stop, ends=self._local.ends).text
        return [answers[i] for i in range(len(requests))]


class RemoteLanguageModel(LM):
    """The lm-eval model of an engine in another process.

    Args:
        ask: Calls a method of that process by its name, with arguments by name.
    """

    def __init__(self, ask: Callable[..., Any]) -> None:
        super().__init__()
        self._ask = ask

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, in nats, and whether it is what greedy decoding gives."""
        return [(total, greedy) for total, greedy in self._answers("loglikelihood", requests)]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[float]:
        """Log-likelihood of each whole text, in nats."""
        return self._answers("loglikelihood_rolling", requests)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """Continue each prompt greedily."""
        return self._answers("generate_until", requests)

    def _answers(self, call: str, requests: Sequence[Any]) -> list[Any]:
        return list(self._ask(call, requests=[request.args for request in requests]))


def without_progress_bars(language_model: Any) -> Any:
    """Make a subclass of lm-eval's vLLM model that shows no progress bars (the flow shows its own).

    It also reports a continuation whose log-likelihood is NaN as not greedy; the original reports it as greedy.
    """

    class QuietLanguageModel(language_model):
        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().generate_until(requests, disable_tqdm=True)

        def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = True, **options: Any) -> Any:
            answers = super()._loglikelihood_tokens(requests, disable_tqdm=True, **options)
            return [(total, greedy and not math.isnan(total)) for total, greedy in answers]

    return QuietLanguageModel


def _generation_options(arguments: dict[str, Any]) -> tuple[int, tuple[str, ...]]:
    """Read (tokens to generate, stop strings) from a task's generation arguments."""
    if arguments.get("do_sample") or arguments.get("temperature"):
        raise ValueError(f"generation_kwargs: {arguments} asks for sampling; the engines decode greedily")
    names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
    sizes = [arguments[name] for name in names if arguments.get(name) is not None]
    until = arguments.get("until") or ()
    return int(sizes[0] if sizes else MAX_NEW_TOKENS), (until,) if isinstance(until, str) else tuple(until)
