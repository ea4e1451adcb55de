"""The keys of durability: what is read, and what is refused with the key, the value and what is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from overedit.flows.config.loading import validated
from overedit.flows.config.models import BenchmarkConfig
from overedit.tasks.durability.options import FinetuneOptions, Operation, parse_operation
from overedit.tasks.durability.texts import tuning_texts

GIVEN: dict[str, Any] = {
    "name": "r",
    "dataset": {"name": "pocket"},
    "methods": ["ft_m"],
    "edit_counts": [1, 10],
    "perplexity": {"corpus": "pocket"},
}


def config(**more: Any) -> BenchmarkConfig:
    return validated(BenchmarkConfig, GIVEN | more, where="c.yaml")


@pytest.mark.parametrize(
    ("text", "operation", "name"),
    [
        ("quantize_int8", ("quantize", 8), "quantize_int8"),
        ("quantize_int4", ("quantize", 4), "quantize_int4"),
        ("merge_base:0.50", ("merge_base", 0.5), "merge_base:0.5"),
        ("merge_base:1", ("merge_base", 1), "merge_base:1"),
        ("finetune:0100", ("finetune", 100), "finetune:100"),
    ],
)
def test_operations_are_read_and_have_one_name(text: str, operation: tuple[str, float], name: str) -> None:
    found = parse_operation(text)
    assert found == Operation(*operation) and found.name == name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["quantize", "quantize_int3", "quantize_int8:2", "merge_base", "merge_base:1.5", "merge_base:nan",
             "finetune", "finetune:0", "finetune:-1", "finetune:1.5", "prune", ""]
)  # fmt: skip
def test_other_operations_are_refused(text: str) -> None:
    with pytest.raises(
        ValueError, match=rf"after: '{text}' is no operation; accepted: quantize_int8, .*finetune:STEPS"
    ):
        config(after=[text])


def test_the_keys_of_a_run() -> None:
    found = config(after=["merge_base:0.5", "merge_base:0.50", "quantize_int8"], after_at=[10])
    assert found.after == ("merge_base:0.5", "quantize_int8") and found.after_at == (10,)
    assert config().after == () and config().after_at == "last"
    assert BenchmarkConfig.model_validate(found.model_dump()) == found
    assert BenchmarkConfig.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"after": "quantize_int8"}, "after: a list is expected"),
        ({"after": [8]}, "after: a list is expected"),
        ({"after": ["quantize_int8"], "after_at": [5]}, "after_at: 5 is not among edit_counts, which are 1, 10"),
        ({"after_at": "first"}, "after_at: 'first' is neither last nor a list of edit counts"),
        ({"after_at": [10, 1]}, r"after_at: \[10, 1\] must increase"),
        ({"after_at": [1], "edit_counts": {"search": "collapse", "definition": "perplexity"}},
         r"after_at: \[1\]: where a search chooses the edit counts, last is accepted"),
        ({"after": ["finetune:5"], "perplexity": {}}, "after: finetune:5 needs text: give after_finetune.corpus"),
        ({"after_finetune": {"learning_rate": 0}}, "after_finetune.learning_rate: .*greater than 0"),
    ],
)  # fmt: skip
def test_mistakes_name_the_key_and_what_is_accepted(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**more)


def test_training_never_sees_the_texts_of_perplexity(tmp_path: Path) -> None:
    corpus = tmp_path / "texts.txt"
    corpus.write_text("".join(f"text {i}\n" for i in range(10)))
    steps, options = [parse_operation("finetune:2"), parse_operation("quantize_int8")], FinetuneOptions(batch_size=2)

    def texts(options: FinetuneOptions, num_measured: int | None) -> dict[str, list[str]]:
        return tuning_texts(steps, options, corpus=str(corpus), num_measured=num_measured)

    assert texts(options, 3) == {"finetune:2": ["text 3", "text 4", "text 5", "text 6"]}
    assert texts(options, 8) == {"finetune:2": ["text 8", "text 9"]}
    with pytest.raises(ValueError, match=r"after_finetune.corpus: .* has no text after the 10 on which perplexity is"):
        texts(options, 10)
    with pytest.raises(ValueError, match=r"after_finetune.corpus: perplexity is measured on all texts of"):
        texts(options, None)
    other = tmp_path / "other.txt"
    other.write_text("another text\n")
    assert texts(options.model_copy(update={"corpus": str(other)}), None) == {"finetune:2": ["another text"]}
    pocket = tuning_texts(steps, options, corpus="pocket", num_measured=200)["finetune:2"]
    assert len(pocket) == 4 and all(pocket)
