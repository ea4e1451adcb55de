"""The running engines as lm-eval sees them.

One asks a transformers model, one is vLLM's without progress bars, and one stands for either in another process.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.model import LM, TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from overedit.tasks.engine.tokenization import encode, generation
from overedit.tasks.engine.transformers_batches import LocalModel

MAX_NEW_TOKENS = 256
"""Tokens generated where a task does not say how many (lm-eval's own default)."""


class LocalLanguageModel(TemplateLM):
    """A transformers model for lm-eval; greedy, one process, and no second copy of the weights.

    lm-eval's own wrapper of transformers models needs a package for distributing them that is of no use here.

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
        """The token before a text without context."""
        first = self._local.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens."""
        return self._local.room

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids, with the tokenizer's own special tokens unless told otherwise."""
        options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self._local.tokenizer(string, **options)["input_ids"])

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, in nats, and whether it is what greedy decoding gives."""
        return list(super().loglikelihood(requests, disable_tqdm=True))

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        targets = [continuation for _, _, continuation in requests]
        most = self.max_length - 1  # as vLLM, which keeps room for a token that it has to generate
        whole = [(context + continuation)[-most:] for _, context, continuation in requests]
        answers = []
        for target, reading in zip(targets, self._local.read_all(whole), strict=True):
            size = len(target)
            answers.append((-sum(reading.nlls[-size:]), reading.greedy_ids[-size:] == tuple(target)))
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[float]:
        """Log-likelihood of each whole text, in nats."""
        texts = [self.tok_encode(request.args[0]) for request in requests]
        pieces = [[("", *piece) for piece in self._windows(ids)] for ids in texts]
        totals = iter(self._loglikelihood_tokens([piece for text in pieces for piece in text]))
        return [sum(next(totals)[0] for _ in text) for text in pieces]

    def _windows(self, ids: list[int]) -> list[tuple[list[int], list[int]]]:
        """A text in pieces that fit, each a context and the tokens after it, as lm-eval cuts it for vLLM."""
        cut = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length - 2, context_len=1)
        return [make_disjoint_window(piece) for piece in cut]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """Greedy continuations.

        Raises:
            ValueError: A task asks for sampling.
        """
        groups: dict[tuple[int, tuple[str, ...]], list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            groups[_generation_options(request.args[1])].append(i)
        answers: dict[int, str] = {}
        for (max_tokens, stop), group in groups.items():
            ids = encode(self._local.tokenizer, [requests[i].args[0] for i in group])
            ids = [sequence[-(self.max_length - max_tokens) :] for sequence in ids]
            for i, new in zip(group, self._local.continue_all(ids, max_tokens=max_tokens, stop=stop), strict=True):
                answers[i] = generation(self._local.tokenizer, new, stop=stop, ends=self._local.ends).text
        return [answers[i] for i in range(len(requests))]


class DistantLanguageModel(LM):
    """The language model of an engine in another process.

    Args:
        ask: Puts a question to it: the name of a method, and its arguments by name.
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
        """Greedy continuations."""
        return self._answers("generate_until", requests)

    def _answers(self, call: str, requests: Sequence[Any]) -> list[Any]:
        return list(self._ask(call, requests=[request.args for request in requests]))


def without_progress_bars(language_model: Any) -> Any:
    """A subclass of lm-eval's vLLM model that shows no progress bars (the flow shows its own).

    It also says of a continuation whose likelihood is not a number that it is not the greedy one; the original says
    that it is.
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
    """A task's words for (tokens to generate, stop strings)."""
    if arguments.get("do_sample") or arguments.get("temperature"):
        raise ValueError(f"generation_kwargs: {arguments} asks for sampling; the engines decode greedily")
    names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
    sizes = [arguments[name] for name in names if arguments.get(name) is not None]
    until = arguments.get("until") or ()
    return int(sizes[0] if sizes else MAX_NEW_TOKENS), (until,) if isinstance(until, str) else tuple(until)
