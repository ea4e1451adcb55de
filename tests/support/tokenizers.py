"""A tokenizer of pieces, which the tiny models do not have."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

BOS, EOS = 1, 2
WORDS = ["<pad>", "<bos>", "<eos>", "▁", "▁the", "▁capital", "▁is", "▁Oslo", "▁Os", "lo", "▁ca", "pi", "tal", "x"]


def piece_tokenizer(*, bos: bool = True, eos: bool = False) -> PreTrainedTokenizerFast:
    """Like SentencePiece: a space is put in front of every text, and `▁` represents spaces."""
    vocabulary = [(word, -1.0) for word in WORDS]
    inner = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Metaspace()
    single = ("<bos> " if bos else "") + "$A" + (" <eos>" if eos else "")
    inner.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<bos>", BOS), ("<eos>", EOS)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
