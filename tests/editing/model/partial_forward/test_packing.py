"""Sequence packing: the distribution over packs, their layout and mask."""

from __future__ import annotations

import torch

from overedit.editing.model.partial_forward.packing import lay_out, mask_of, plan_packs
from overedit.editing.model.tokenization import TokenPair


def test_packs_are_even() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [
        (int(p), int(a))
        for p, a in zip(
            *(torch.randint(low, high, (100,), generator=generator) for low, high in ((6, 19), (2, 7))), strict=True
        )
    ]
    pairs = [TokenPair((1,) * prompt, (1,) * answer) for prompt, answer in lengths]
    packs = plan_packs(pairs, 96)
    assert sorted(i for pack in packs for i in pack) == list(range(100))
    for size in (lambda pair: len(pair.prompt) - 1, lambda pair: len(pair.target)):
        totals = [sum(size(pairs[i]) for i in pack) for pack in packs]
        assert max(totals) * len(packs) < 1.15 * sum(totals)


def test_packs_by_hand() -> None:
    pairs = [TokenPair((1,) * 5, (1,)), TokenPair((1,) * 3, (1,)), TokenPair((1,) * 3, (1,))]
    assert plan_packs(pairs, 6) == [[0], [1, 2]]
    assert plan_packs(pairs, 100) == [[0, 1, 2]]
    assert plan_packs(pairs, 1) == [[0], [1], [2]]
    assert plan_packs([TokenPair((1,), (1,))], 64) == [[0]]


def test_layout_and_mask_by_hand() -> None:
    packs = lay_out([[(0, (7, 8), 0), (1, (9,), 4)], [(0, (5,), 0)]], torch.device("cpu"))
    assert packs.ids_LT.tolist() == [[7, 8, 9], [5, 7, 7]]
    assert packs.positions_LT.tolist() == [[0, 1, 4], [0, 0, 0]]
    assert packs.owners_LT.tolist() == [[0, 0, 1], [0, -1, -1]]
    mask = mask_of(packs, [packs], torch.float32)
    assert mask.shape == (2, 1, 3, 3)
    assert (mask[0, 0] == 0).tolist() == [[True, False, False], [True, True, False], [False, False, True]]
    assert (mask[1, 0] == 0).tolist() == [[True, False, False], [False, True, True], [False, True, True]]
    assert float(mask.min()) == torch.finfo(torch.float32).min
