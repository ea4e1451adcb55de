"""vLLM in a process of its own, model family by model family: fused, biased, transposed and permuted weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECK = """
import sys
from pathlib import Path
import torch, transformers
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, MistralConfig, Qwen2Config
from overedit.tasks.engine.lazy import open_engine
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.models.reference import ModelReference
from tests.tasks.conftest import write_test_checkpoint
from tests.support.small_model import FACTS, changed, small_tokenizer

transformers.utils.logging.disable_progress_bar()
root = Path(sys.argv[1])
tokenizer = small_tokenizer([f"{prompt} {answer}." for prompt, answer in FACTS])
size = dict(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)
families = {
    "qwen2": (Qwen2Config(**size, intermediate_size=160, num_key_value_heads=1),
              "model.layers.1.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.weight"),
    "mistral": (MistralConfig(**size, intermediate_size=160, num_key_value_heads=1, head_dim=32),
                "model.layers.0.mlp.down_proj.weight", "model.layers.1.self_attn.v_proj.weight"),
    "gpt2": (GPT2Config(vocab_size=len(tokenizer), n_embd=64, n_layer=2, n_head=2, n_positions=64,
                        bos_token_id=1, eos_token_id=2),
             "transformer.h.0.mlp.c_proj.weight", "transformer.h.1.attn.c_proj.weight"),
    "gpt_neox": (GPTNeoXConfig(**size, intermediate_size=160),
                 "gpt_neox.layers.0.mlp.dense_4h_to_h.weight", "gpt_neox.layers.1.attention.query_key_value.weight"),
}
prompts = [prompt for prompt, _ in FACTS]
for name, (config, first, second) in families.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # livelier than a fresh model: answers differ, and no bias is 0
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(root / name)
    tokenizer.save_pretrained(root / name)
    weights = {key: value.detach() for key, value in model.named_parameters()}
    steps = [write_test_checkpoint(root / f"{name}-{i}", changed(weights, key, by=3.0))
             for i, key in enumerate((first, second))]
    model = ModelReference(str(root / name))
    engines = [open_engine(model, EngineOptions(kind=kind)) for kind in ("vllm", "transformers")]
    answers = []
    for step in (None, *steps, None):
        assert all(engine.swap(step).verified for engine in engines), (name, step)
        ours, theirs = (engine.generate(prompts, max_tokens=8) for engine in engines)
        assert ours == theirs, (name, step)
        answers.append(ours)
    assert answers[0] == answers[3] and answers[0] != answers[1] and answers[0] != answers[2], name
    for engine in engines:
        engine.close()
    print(name, "agrees")
"""


@pytest.mark.slow
def test_vllm_takes_weights_of_every_family(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(tmp_path)], cwd=repository, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split() == [
        word for name in ("qwen2", "mistral", "gpt2", "gpt_neox") for word in (name, "agrees")
    ]
