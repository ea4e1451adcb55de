"""Forecasts what a run of a checked plan will take, and looks for the nearest setting with which it would fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from transformers import AutoTokenizer

from overedit.editing.methods.base import MethodConfig
from overedit.editing.methods.locate_then_edit.curvature import reading_operations
from overedit.editing.model.shape import ModelShape
from overedit.editing.model.tokenization import encode_texts
from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.plan import Plan, given_counts, model_skeleton
from overedit.tasks.data.corpus import open_corpus
from overedit.tasks.editing_job.covariance_cache import not_cached
from overedit.tasks.engine.options import engine_kind
from overedit.tasks.evaluation.perplexity import corpus_texts
from overedit.tasks.execution.options import RayExecution
from overedit.tasks.planning.asking import Measures, asked_in_run, case_questions, item_operations
from overedit.tasks.planning.engine_memory import engine_memory, least_gpu_bytes
from overedit.tasks.planning.forecast import Forecast, MethodForecast, StageForecast, needs_of
from overedit.tasks.planning.machine import Machine, MatmulRates, matmul_rates
from overedit.tasks.planning.rates import Rates, bytes_per_outcome, measured_rates
from overedit.tasks.planning.searches import fewest_and_most
from overedit.tasks.planning.trajectories import (
    Memory,
    Tokens,
    calls,
    checkpoints_bytes,
    editing_memory,
    edits_made,
    operations,
)

SAMPLE = 200
"""Requests whose tokens and questions are counted."""
EDITING_SHARE, ENGINE_SHARE = 0.4, 0.2
"""Assumed speed of editing and of answering, as shares of the rate of a large matrix product."""
SWAP_BYTES_PER_SECOND = 500e6
"""Assumed speed at which a checkpoint is read, checked and written into the engine."""
START_SECONDS = {"vllm": 90.0, "transformers": 2.0}
"""Assumed start of an engine's process."""
OTHER_SECONDS = 40.0
"""Assumed of Prefect's server, imports, the report and publishing."""
OTHER_PROCESSES = 400 << 20
"""Assumed memory of Prefect's server."""
PROCESS_BYTES = 750 << 20
"""Assumed of the process that edits, beside what is counted: Python, torch, transformers, Prefect, DuckDB, lm-eval."""
OUTCOME_BYTES = 150.0
"""Assumed bytes of a row of outcomes on the disk."""


class Facts(NamedTuple):
    """What is counted once for a plan, whatever the settings that a forecast varies."""

    plan: Plan
    stored: ModelShape
    """The model's shape in the dtype that its weights are stored in."""
    tokens: Tokens
    measures: Measures
    text_tokens: float
    """Tokens of a text of the perplexity's corpus; 0 without one."""
    rates: Rates
    outcome_bytes: float | None
    machine: Machine
    rate: MatmulRates
    """Measured now, in the dtype that the weights are stored in."""
    covariance_tokens: Mapping[str, float]
    """Corpus -> tokens that the covariance of the keys is computed from, where it has to be."""


def forecasts(facts: Facts, config: BenchmarkConfig) -> dict[str, Forecast]:
    """The forecast of a configuration; of a search that with the fewest and with the most edit counts."""
    search = facts.plan.search
    if search is None:
        return {"as configured": forecast(facts, config, given_counts(config))}
    fewest, most = fewest_and_most(search)
    return {
        "a search with the fewest edits": forecast(facts, config, fewest),
        "a search with the most edits": forecast(facts, config, most),
    }


def count_facts(plan: Plan, machine: Machine) -> Facts:
    """Read and count what forecasts need; a matrix product is timed for a moment.

    Raises:
        ValueError: As the perplexity's corpus, or the general benchmarks.
    """
    config, model = plan.config, plan.model
    skeleton = model_skeleton(model)
    stored_dtype = getattr(skeleton.config, "dtype", None) or torch.float32
    stored = ModelShape.of(skeleton, itemsize=stored_dtype.itemsize)
    tokenizer = AutoTokenizer.from_pretrained(model.locate(), revision=model.revision, trust_remote_code=False)
    some = list(islice(plan.planned(config.order_seeds[0]), SAMPLE))
    prompts = encode_texts(tokenizer, [request.prompt for request in some])
    targets = encode_texts(tokenizer, [request.target_new for request in some])
    tokens = Tokens(_mean(map(len, prompts)), _mean(map(len, targets)))
    texts = corpus_texts(config.perplexity)
    asked, when = config.capability.asked, config.capability.when
    items = plan.loader.load().num_items(config.capability.most_items) if asked and when != "never" else {}
    measures = Measures(
        case_questions(some, config.evaluation), config.evaluation.sample, len(texts), sum(items.values()), when
    )
    text_tokens = _mean(map(len, encode_texts(tokenizer, texts[:SAMPLE]))) if texts else 0.0
    kind = engine_kind(config.engine)
    warehouse = plan.run.warehouse
    outcomes = sum(path.stat().st_size for path in (plan.run.home / "warehouse" / "outcomes").rglob("*.parquet"))
    covariance = {}
    dtype = stored_dtype if config.dtype == "auto" else getattr(torch, config.dtype)
    for method in config.methods:
        options = method.covariance_options
        if options is not None and not_cached(options, method.covariances, model_digest=model.digest, dtype=dtype):
            first = encode_texts(tokenizer, list(islice(open_corpus(options.corpus, 50, key="covariance").texts, 50)))
            length = _mean(min(len(ids), options.max_length) for ids in first)
            covariance[options.corpus] = length * (options.num_samples or 100_000)
    return Facts(
        plan=plan,
        stored=stored,
        tokens=tokens,
        measures=measures,
        text_tokens=text_tokens,
        rates=measured_rates(warehouse, plan.run.model, kind, stored, tokens),
        outcome_bytes=bytes_per_outcome(warehouse, outcomes),
        machine=machine,
        rate=matmul_rates(stored_dtype),
        covariance_tokens=covariance,
    )


def forecast(facts: Facts, config: BenchmarkConfig, counts: Sequence[int]) -> Forecast:
    """What a run takes at these edit counts; `config` may differ from the plan's in what does not change its facts."""
    itemsize = _itemsize(config.dtype, facts.stored.itemsize)
    shape = facts.stored._replace(itemsize=itemsize)
    base = facts.rates.process_bytes or PROCESS_BYTES
    methods = [
        _of_method(facts, shape, label, method, counts, config, base)
        for label, method in zip(config.labels, config.methods, strict=True)
    ]
    kind, on_gpu = engine_kind(config.engine), facts.machine.gpu
    engine_shape = shape._replace(itemsize=_itemsize(config.engine.dtype, facts.stored.itemsize))
    engine = engine_memory(kind, config.engine, engine_shape, facts.plan.model.load_config(), gpu_bytes=on_gpu)
    num_orders = len(config.order_seeds)
    on = config.execution
    editors, engines = (on.editors, on.engines) if isinstance(on, RayExecution) else (1, 1)
    asked = asked_in_run(facts.measures, counts, num_methods=len(config.methods), num_orders=num_orders)
    rows = asked.rows * (facts.outcome_bytes or OUTCOME_BYTES)
    needs = needs_of(
        facts.machine,
        [method.memory for method in methods],
        engine,
        least_gpu=least_gpu_bytes(kind, config.engine, engine_shape),
        at_once=min(editors, num_orders * len(methods)),
        engines=engines,
        other_processes=OTHER_PROCESSES,
        disk=num_orders * sum(method.disk for method in methods) + rows,
    )
    stages = _stages(facts, config, kind, shape, asked._asdict(), counts)
    return Forecast(
        edit_counts=tuple(counts),
        num_orders=num_orders,
        methods=tuple(methods),
        stages=stages,
        needs=needs,
        notes=tuple(_notes(facts, config, kind, engine)),
    )


def _of_method(
    facts: Facts,
    shape: ModelShape,
    label: str,
    method: MethodConfig,
    counts: Sequence[int],
    config: BenchmarkConfig,
    base: float,
) -> MethodForecast:
    of_calls = calls(method, counts, config.turn_size)
    total = operations(method, shape, facts.tokens, of_calls)
    measured = facts.rates.edit.get(method.method)
    memory = editing_memory(
        method,
        shape,
        facts.tokens,
        of_calls,
        process_bytes=base,
        is_mapped=shape.itemsize == facts.stored.itemsize and not facts.machine.gpu,
        on_gpu=bool(facts.machine.gpu),
        offload=config.editing.offload,
    )
    return MethodForecast(
        label=label,
        edits=edits_made(of_calls),
        operations=total,
        memory=memory,
        disk=checkpoints_bytes(method, shape, facts.tokens, counts, config.turn_size),
        seconds=total / (measured or EDITING_SHARE * facts.rate.training),
        source="measured" if measured else "assumed",
    )


def _stages(
    facts: Facts,
    config: BenchmarkConfig,
    kind: str,
    shape: ModelShape,
    asked: Mapping[str, float],
    counts: Sequence[int],
) -> tuple[StageForecast, ...]:
    """The stages beside editing; those without items are left out."""
    measured = facts.rates.stages
    each = item_operations(
        shape,
        prompt_tokens=facts.tokens.prompt,
        target_tokens=facts.tokens.target,
        new_tokens=facts.measures.case.new_tokens,
        text_tokens=facts.text_tokens,
    )
    per_item = {stage: total / (ENGINE_SHARE * facts.rate.forward) for stage, total in each.items()}
    swapped = max(shape.values(method.sites) for method in config.methods) * shape.itemsize
    per_item |= {"swap": swapped / SWAP_BYTES_PER_SECOND, "engine_start": START_SECONDS[kind]}
    found = [
        StageForecast(
            stage,
            asked[stage],
            asked[stage] * measured.get(stage, seconds),
            "measured" if stage in measured else "assumed",
        )
        for stage, seconds in per_item.items()
        if asked[stage]
    ]
    once = [
        StageForecast("covariance", tokens, _covariance_seconds(facts, config, shape, corpus), "assumed")
        for corpus, tokens in facts.covariance_tokens.items()
    ]
    return (*once, *found, StageForecast("other", 1, OTHER_SECONDS, "assumed"))


def _covariance_seconds(facts: Facts, config: BenchmarkConfig, shape: ModelShape, corpus: str) -> float:
    names = {
        name
        for method in config.methods
        if (options := method.covariance_options) is not None and options.corpus == corpus
        for name in method.covariances
    }
    counted = reading_operations(shape, names, facts.covariance_tokens[corpus])
    return counted / (EDITING_SHARE * facts.rate.forward)


def _notes(facts: Facts, config: BenchmarkConfig, kind: str, engine: Memory) -> list[str]:
    tokens, measured = facts.tokens, facts.rates
    searching = facts.plan.search is not None
    notes = [
        f"requests have {tokens.prompt:.1f} tokens of prompt and {tokens.target:.1f} of target: means over the first "
        f"{min(SAMPLE, facts.plan.last_count):,}; methods that may stop early are counted to their end",
        "memory is what cannot be given back; pages of the weight files "
        f"({_gib(facts.stored.num_bytes)}) are mapped beside it, and read again where memory is short",
        f"the {kind} engine takes about {_gib(engine.host)} of memory beside that of editing"
        + (f", and {_gib(engine.gpu)} of the GPU's" if engine.gpu else ""),
        "the time is that of a whole run, from its beginning, one stage after another",
    ]
    if measured.edit or measured.stages:
        notes.append(
            "measured: rates of earlier runs of this model on this hardware, in this home, per operation or item"
        )
    notes.append(
        f"assumed (~): {EDITING_SHARE:.0%} of the rate of large matrix products for editing and {ENGINE_SHARE:.0%} for "
        f"answering; they were timed now: {facts.rate.forward / 1e9:,.3g} GFLOP/s, {facts.rate.backward / 1e9:,.3g} in "
        "a backward pass; a first run of a few edits in this home replaces assumptions by rates"
    )
    if searching:
        notes.append("a search for one definition of collapse, by a model that is good up to a count and bad behind it")
    if config.capability.when == "gated":
        notes.append("general benchmarks are counted at every checkpoint; gated runs fewer")
    if isinstance(config.execution, RayExecution):
        notes.append("execution: memory as if all workers were on one machine, time as if there were one of each kind")
    if config.after:
        notes.append(f"steps after the edits ({', '.join(config.after)}) are not counted")
    return notes


def _itemsize(dtype: str, stored: int) -> int:
    named: torch.dtype | None = None if dtype == "auto" else getattr(torch, dtype)
    return stored if named is None else named.itemsize


def _mean(numbers: Iterable[int]) -> float:
    found = list(numbers)
    return sum(found) / len(found)


def _gib(number: float) -> str:
    return f"{number / 2**30:.1f} GiB"
