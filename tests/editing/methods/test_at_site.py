"""The same method at another site: every method names its sites, and says which it cannot edit."""

from __future__ import annotations

import pytest

from overedit.editing.methods.registry import METHODS
from tests.support.quick_methods import config_of


@pytest.mark.parametrize("name", METHODS)
def test_only_the_sites_change(name: str) -> None:
    config = config_of(name)
    moved = config.at_site("2.down_proj")
    assert moved.sites == ("2.down_proj",)
    differing = {key for key, value in moved.model_dump().items() if value != config.model_dump()[key]}
    assert differing <= {"site", "sites", "layers"}
    assert type(moved).model_validate(moved.model_dump()) == moved


@pytest.mark.parametrize(
    ("name", "site", "words"),
    [
        ("ultraedit", "1.mlp", "ultraedit edits single projections, and '1.mlp' is not one"),
        ("memit", "1.up_proj", "memit edits down_proj here, and '1.up_proj' is another part"),
    ],
)
def test_a_site_that_a_method_does_not_edit(name: str, site: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config_of(name).at_site(site)
