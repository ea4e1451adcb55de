"""The prefix tree: equal prefixes are stored once, each sequence sees itself alone, and layers are run once."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from transformers import PreTrainedModel

from overedit.editing.model.anatomy import FAMILIES, Anatomy
from overedit.editing.model.hooks import traced
from overedit.editing.model.partial_forward.prefix_tree import PrefixTree, build_prefix_tree
from overedit.editing.model.partial_forward.tree_forward import TreeForward
from tests.support.tiny_models import tiny

CPU = torch.device("cpu")
SEQUENCES = [(5, 6, 7), (9,), (5, 6, 8, 2), (5, 6), (9,), (5, 6, 7)]


def drawn(count: int, *, tokens: int = 3, longest: int = 9) -> list[tuple[int, ...]]:
    draw = random.Random(count)
    return [tuple(draw.randrange(tokens) for _ in range(draw.randint(1, longest))) for _ in range(count)]


def test_a_tree_by_hand() -> None:
    tree = build_prefix_tree(SEQUENCES, CPU, pack_tokens=100)
    assert tree.ids_R.tolist() == [5, 6, 7, 8, 2, 9]
    assert tree.positions_R.tolist() == [0, 1, 2, 2, 3, 0]
    assert tree.ends_R.tolist() == [5, 5, 3, 5, 5, 6]
    assert tree.packs == (range(6),)
    assert tree.last_rows == (2, 5, 4, 1, 5, 2)


def test_packs_and_their_padding_by_hand() -> None:
    tree = build_prefix_tree(SEQUENCES, CPU, pack_tokens=3)
    assert tree.ids_R.tolist() == [5, 6, 7, 5, 6, 8, 2, 9], "a prefix that two packs share is in each"
    assert tree.packs == (range(3), range(3, 7), range(7, 8)), "a sequence of four has a pack of its own"
    assert tree.sequences == ((3, 0, 5), (2,), (1, 4))
    laid_out = tree.lay_out([2, 0])
    assert laid_out.rows_LT.tolist() == [[7, 7, 7], [0, 1, 2]]
    assert laid_out.real_LT.tolist() == [[True, False, False], [True, True, True]]
    assert laid_out.positions_LT.tolist() == [[0, 0, 0], [0, 1, 2]]
    assert laid_out.seen_LTT[0].tolist() == [[True, False, False]] * 3, "padding is seen by none, and sees a token"
    assert laid_out.seen_LTT[1].tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert laid_out.last_S.tolist() == [0, 0, 4, 5, 5]
    assert [s for n in (2, 0) for s in tree.sequences[n]] == [1, 4, 3, 0, 5]


def seen(tree: PrefixTree, s: int) -> tuple[int, ...]:
    """The tokens that a sequence's last token sees, in the order of their positions."""
    (pack,) = (number for number, members in enumerate(tree.sequences) if s in members)
    laid_out = tree.lay_out([pack])
    place = int(laid_out.last_S[tree.sequences[pack].index(s)])
    rows = laid_out.rows_LT[0][laid_out.seen_LTT[0, place]]
    assert tree.positions_R[rows].tolist() == list(range(len(rows)))
    return tuple(tree.ids_R[rows].tolist())


@pytest.mark.parametrize("pack_tokens", [1, 5, 20, 1000])
def test_each_sequence_sees_itself(pack_tokens: int) -> None:
    sequences = drawn(60)
    tree = build_prefix_tree(sequences, CPU, pack_tokens=pack_tokens)
    assert [seen(tree, s) for s in range(len(sequences))] == sequences
    assert sorted(s for members in tree.sequences for s in members) == list(range(len(sequences)))
    assert [row for pack in tree.packs for row in pack] == list(range(len(tree.ids_R)))
    for pack, members in zip(tree.packs, tree.sequences, strict=True):
        distinct = {sequences[s][:length] for s in members for length in range(1, len(sequences[s]) + 1)}
        assert len(pack) == len(distinct) and (len(pack) <= pack_tokens or len({sequences[s] for s in members}) == 1)


def rows_of(model: PreTrainedModel, site: str, sequences: list[tuple[int, ...]], *, entering: bool) -> torch.Tensor:
    """What each sequence gives by itself."""
    name, found = Anatomy.of(model).site_module(site), []
    for ids in sequences:
        with traced(model, [name]) as trace, torch.no_grad():
            model(torch.tensor([ids]))
        read = trace.inputs[name] if entering else trace.outputs[name]
        found.append(read.reshape(len(ids), -1)[-1])
    return torch.stack(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_those_of_each_sequence_alone(family: str) -> None:
    """Several parts of layers, from the embeddings on and from inputs that were kept."""
    model, sequences, max_tokens = tiny(family), drawn(12, longest=6), 20
    last = "down_proj" if "down_proj" in Anatomy.of(model).parts else "o_proj"
    kept = TreeForward(model, sequences, max_tokens=max_tokens)
    for site, entering in ((f"1.{last}", True), ("2.layer", False), ("1.mlp", False), (f"2.{last}", True)):
        found = kept.read(site, entering=entering, keep=entering)
        again = TreeForward(model, sequences, max_tokens=max_tokens).read(site, entering=entering, keep=False)
        assert torch.equal(found, again), site
        expected = rows_of(model, site, sequences, entering=entering)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-6, msg=site)


def test_distinct_prefixes_run_once_in_each_layer() -> None:
    """The layers below the one that was read last are not run again."""
    model = tiny("llama")
    tokens: Counter[int] = Counter()
    for index, layer in enumerate(model.model.layers):
        layer.self_attn.register_forward_pre_hook(
            lambda _, args, kwargs, index=index: tokens.update({index: kwargs["hidden_states"][..., 0].numel()}),
            with_kwargs=True,
        )
    subjects = TreeForward(model, [(1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 6)], max_tokens=1000)
    assert subjects.num_tokens == 6
    subjects.read("1.down_proj", entering=True, keep=True)
    assert tokens == {0: 6, 1: 6}
    subjects.read("2.layer", entering=False, keep=False)
    assert tokens == {0: 6, 1: 12, 2: 6}
    subjects.read("2.down_proj", entering=True, keep=True)
    assert tokens == {0: 6, 1: 18, 2: 12}
    subjects.read("0.down_proj", entering=True, keep=True)
    assert tokens == {0: 12, 1: 18, 2: 12}
