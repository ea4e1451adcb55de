"""Keys and residuals of three layers, and a whole turn of MEMIT, with shared prefixes and kept layers against without.

64 requests in six contexts on a small Llama. The plain arm reads each site by passes over whole prompts, through all
layers from the embeddings on. One thread against one thread, in turns, equal results asserted; times are CPU seconds,
which on an idle machine are wall seconds. Operations of matrix products and attention are counted at the dispatcher.
Run as `python tests/benchmarks/bench_keys.py [--repeats 3]`.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from overedit.editing.methods.locate_then_edit import algorithm
from overedit.editing.methods.locate_then_edit.contexts import ContextOptions
from overedit.editing.methods.locate_then_edit.covariance import SecondMoment
from overedit.editing.methods.locate_then_edit.keys import Keys, SubjectActivations, at_subjects
from overedit.editing.methods.locate_then_edit.subjects import PromptSet, Templates, encode_prompt_sets
from overedit.editing.methods.locate_then_edit.value_options import ValueOptions
from overedit.editing.methods.memit import Memit, memit
from overedit.editing.requests import EditRequest
from tests.benchmarks.bench_ultraedit import VOCABULARY, make_model
from tests.benchmarks.counting import Counted

NUM_REQUESTS, LAYERS = 64, (3, 4, 5)
SITES = tuple(f"{layer}.down_proj" for layer in LAYERS)


class PlainActivations:
    """Reads keys and outputs as `SubjectActivations` does, with nothing shared or kept."""

    def __init__(
        self, model: PreTrainedModel, prompt_sets: Sequence[PromptSet], templates: Templates, max_tokens: int
    ) -> None:
        self.model, self.prompt_sets, self.max_tokens = model, prompt_sets, max_tokens
        self.sizes = [len(group) for group in templates]

    def keys(self, site: str) -> Keys:
        marked = [prompt for prompt_set in self.prompt_sets for prompt in prompt_set.prompts]
        rows_RX = at_subjects(self.model, marked, inputs_of=site, max_tokens=self.max_tokens).double()
        rows_NCX = rows_RX.unflatten(0, (len(self.prompt_sets), -1))
        groups = [group_NCX.mean(1) for group_NCX in rows_NCX.split(self.sizes, 1)]
        return Keys(torch.stack(groups).mean(0).T, rows_NCX[:, 0].T)

    def outputs(self, site: str, *, in_contexts: bool) -> torch.Tensor:
        assert not in_contexts
        bare = [prompt_set.prompts[0] for prompt_set in self.prompt_sets]
        return at_subjects(self.model, bare, outputs_of=site, max_tokens=self.max_tokens).double().T


def make_requests() -> tuple[PreTrainedTokenizerFast, list[EditRequest], Templates]:
    """Random words with the lengths of CounterFact's: prompts of 5-9 tokens, subjects of 2-4, targets of 1-2.

    Half of the subjects have one to three tokens before them. The contexts are five texts of 9-11 tokens.
    """
    inner = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    draw = random.Random(0)

    def words(low: int, high: int) -> str:
        return " ".join(f"w{draw.randrange(VOCABULARY)}" for _ in range(draw.randint(low, high)))

    requests = []
    for i in range(NUM_REQUESTS):
        lead, subject = words(1, 3) if i % 2 else "", words(2, 4)
        prompt = f"{lead} {subject} {words(2, 3)}".strip()
        requests.append(EditRequest(case_id=str(i), prompt=prompt, subject=subject, target_new=words(1, 2)))
    templates: Templates = (("{}",), tuple(f"{words(9, 11)} {{}}" for _ in range(5)))
    return PreTrainedTokenizerFast(tokenizer_object=inner), requests, templates


class Arm(NamedTuple):
    run: Callable[[], dict[str, torch.Tensor]]
    seconds: list[float]


def compare(title: str, goal: float, arms: dict[str, Arm], repeats: int) -> bool:
    """Count each arm once, time them in turns, and print their ratio."""
    operations, results = {}, {}
    for name, arm in arms.items():  # also the warm-up
        with Counted() as counted:
            results[name] = arm.run()
        operations[name] = sum(counted.flop.values())
    errors = [
        float((found - results["plain"][key]).norm() / results["plain"][key].norm())
        for key, found in results["shared"].items()
    ]
    for _ in range(repeats):
        for arm in arms.values():
            begun = time.process_time()
            arm.run()
            arm.seconds.append(time.process_time() - begun)
    print(f"{title}; {repeats} repeats, one thread")
    for name, arm in arms.items():
        low, middle, high = statistics.quantiles(arm.seconds, n=4)
        print(f"{name:<8}{middle:>8.2f} s (quartiles {low:.2f} - {high:.2f}){operations[name] / 1e9:>10.1f} GFLOP")
    ratios = [plain / shared for shared, plain in zip(arms["shared"].seconds, arms["plain"].seconds, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    met = middle >= goal
    print(
        f"ratio {middle:.2f}x (quartiles {low:.2f} - {high:.2f}, goal {goal}x): {'met' if met else 'MISSED'}; ", end=""
    )
    print(f"operations {operations['plain'] / operations['shared']:.2f}x; relative difference {max(errors):.1e}\n")
    return met


def bench_keys(model: LlamaForCausalLM, repeats: int) -> bool:
    """Keys of each layer, and the outputs of the last at the bare prompts: what a turn reads."""
    tokenizer, requests, templates = make_requests()
    prompt_sets = encode_prompt_sets(model, tokenizer, requests, templates)

    def reading(kind: Callable[..., Any]) -> dict[str, torch.Tensor]:
        subjects, found = kind(model, prompt_sets, templates, 8192), {}
        for site in SITES:
            found |= {f"{site}.{name}": keys for name, keys in subjects.keys(site)._asdict().items()}
            found[f"{site}.outputs"] = subjects.outputs(f"{LAYERS[-1]}.layer", in_contexts=False)
        return found

    arms = {"shared": Arm(lambda: reading(SubjectActivations), []), "plain": Arm(lambda: reading(PlainActivations), [])}
    return compare(f"keys and residuals of layers {LAYERS}, {NUM_REQUESTS} requests", 3, arms, repeats)


def bench_turn(model: LlamaForCausalLM, repeats: int) -> bool:
    """A turn of MEMIT; the covariance is an identity, factorized before."""
    tokenizer, requests, templates = make_requests()
    moment = SecondMoment(torch.eye(model.config.intermediate_size, dtype=torch.float64), 1, 0.0)
    covariance = dict.fromkeys(SITES, moment)
    values = ValueOptions(num_steps=20, stop_below=0, learning_rate=0.02)
    config = Memit(layers=LAYERS, values=values, contexts=ContextOptions(templates=templates), covariance_weight=1)

    def turn(kind: Callable[..., Any]) -> dict[str, torch.Tensor]:
        algorithm.SubjectActivations = kind  # type: ignore[misc, assignment]
        result = memit(model, tokenizer, requests, config, {}, covariance=covariance)
        return {name: change.left @ change.right for name, change in result.update.items()}

    arms = {"shared": Arm(lambda: turn(SubjectActivations), []), "plain": Arm(lambda: turn(PlainActivations), [])}
    return compare(f"a turn of MEMIT, {NUM_REQUESTS} edits, 20 steps, layers {LAYERS}", 1.4, arms, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = make_model()
    model.requires_grad_(False)
    bench_keys(model, options.repeats)
    bench_turn(model, options.repeats)


if __name__ == "__main__":
    main()
