"""The pocket model's tokenizer: one token per common word or last name, two or three per first name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from overedit.tasks.pocket_world import corpus, skills
from overedit.tasks.pocket_world.relations import FIRST_NAMES, LAST_NAMES, RELATIONS

SPECIAL_TOKENS = ["<pad>", "<s>", "</s>"]
MAX_TOKENS = 4096
MIN_FREQUENCY = 15


def _words() -> list[str]:
    """Every common word of the world, with its leading space where a text has one."""
    templates = chain.from_iterable(r.phrasings + r.value_phrasings + r.composed_phrasings for r in RELATIONS)
    sentences = [re.sub(r"\{\w+\}", "It", template) for template in templates]
    texts = [
        statement.text for statement in corpus.value_facts() + corpus.skill_statements(2000, seed=0, held_out=False)
    ]
    numbers = [f" {n}" for n in range(2 * skills.LARGEST_OPERAND + 1)]
    return sorted({word for text in sentences + texts + numbers for word in re.findall(r" ?\w+| ?[^\w\s]+", text)})


def _texts() -> Iterator[str]:
    """Words, repeated so that each becomes one token, and each first name once, so that only its syllables do."""
    for word in [*_words(), *(f" {last}" for last in LAST_NAMES)]:
        yield from [word] * (2 * MIN_FREQUENCY)
    for first in FIRST_NAMES:
        yield from (first, f" {first}")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train the byte-level BPE tokenizer; it puts `<s>` before every text and can encode any text."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=MAX_TOKENS,
        min_frequency=MIN_FREQUENCY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
