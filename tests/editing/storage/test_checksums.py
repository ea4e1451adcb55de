from __future__ import annotations

import json

import pytest

from overedit.editing.storage.checksums import sealed, unsealed

TEXT = json.dumps({"edit_count": 3, "text": "é", "norm": 1e-05}, indent=1) + "\n"


def test_the_object_is_the_same_with_a_key_more() -> None:
    content = sealed(TEXT)
    assert {**json.loads(content), "sha256": None} == {**json.loads(TEXT), "sha256": None}
    assert unsealed(content) == TEXT.encode()
    assert unsealed(TEXT.encode()) == TEXT.encode(), "one without a checksum is taken as it is"


def test_every_flipped_bit_is_found() -> None:
    content = sealed(TEXT)
    for place in range(len(content)):
        for bit in range(8):
            flipped = content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
            try:
                found = json.loads(unsealed(flipped))
            except ValueError:
                continue
            assert found.keys() != json.loads(TEXT).keys(), "nor is it taken for one that has no checksum"


def test_what_is_cut_is_found() -> None:
    for end in range(len(sealed(TEXT)) - 1):
        with pytest.raises(ValueError):
            json.loads(unsealed(sealed(TEXT)[:end]))
