"""Small trainable models of several families, and a tokenizer of bytes, for the tests of fine-tuning."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from overedit.editing.methods.fine_tuning.tuner import Sample, encode_samples
from overedit.editing.requests import EditRequest
from tests.support.tiny_models import tiny

FAMILIES = ("llama", "gpt2", "qwen2", "gpt_neox")
DOWN = {
    "llama": "model.layers.1.mlp.down_proj.weight",
    "qwen2": "model.layers.1.mlp.down_proj.weight",
    "gpt2": "transformer.h.1.mlp.c_proj.weight",
    "gpt_neox": "gpt_neox.layers.1.mlp.dense_4h_to_h.weight",
}
"""The parameter of the site `1.down_proj`."""
WORDS = ("copper", "nine", "a long harbour", "Ulm", "the sea", "red", "Oslo", "wood and iron", "tea", "May")


def byte_tokenizer(pad: str = "<|pad|>") -> PreTrainedTokenizerFast:
    """One token a byte, then `<|pad|>` and `<|eos|>`; nothing is added by itself."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=pad, eos_token="<|eos|>")


def teachable(family: str, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A tiny random model whose logits are wide enough for a token to be near certain."""
    model = tiny(family)
    with torch.no_grad():
        model.lm_head.weight *= 8
    return model.to(dtype)


def some_requests(count: int = 7) -> list[EditRequest]:
    """Requests of different lengths, so that batches need padding."""
    return [
        EditRequest(
            case_id=str(i),
            prompt=f"{'Say: ' * (i % 3)}item {i} is",
            subject=f"item {i}",
            target_new=WORDS[i % len(WORDS)],
        )
        for i in range(count)
    ]


def snapshot(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unchanged(model: PreTrainedModel, before: dict[str, torch.Tensor]) -> bool:
    after = model.state_dict()
    return after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


def greedy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, request: EditRequest, tokens: int) -> str:
    """The text that a model puts after a prompt, up to its end token."""
    ids = tokenizer(request.prompt)["input_ids"]
    begin = len(ids)
    with torch.no_grad():
        while len(ids) < begin + tokens and ids[-1] != tokenizer.eos_token_id:
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return str(tokenizer.decode(ids[begin:]))


def samples_of(model: PreTrainedModel, count: int = 7) -> list[Sample]:
    return encode_samples(model, byte_tokenizer(), some_requests(count), append_eos=True)


def plain_losses(model: PreTrainedModel, samples: list[Sample]) -> list[float]:
    """Mean NLL of each sample's target, one sample at a time, by the model's own loss."""
    losses = []
    for sample in samples:
        ids = torch.tensor([sample.ids])
        labels = ids.clone()
        labels[0, : sample.positions[0] + 1] = -100
        with torch.no_grad():
            losses.append(float(model(input_ids=ids, labels=labels).loss))
    return losses
