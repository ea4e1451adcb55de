from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from overedit.flows.config.loading import read_yaml, validated, with_settings


class Apple(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["apple"] = "apple"
    seeds: int = 5


class Pear(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["pear"] = "pear"
    weight: float = 1.0


class Basket(BaseModel):
    model_config = ConfigDict(extra="forbid")
    owner: str
    fruits: tuple[Annotated[Apple | Pear, Field(discriminator="kind")], ...] = ()


def test_settings_reach_into_mappings_and_lists() -> None:
    content = {"owner": "a", "fruits": [{"kind": "apple"}, {"kind": "pear"}]}
    changed = with_settings(content, ["fruits.0.seeds=7", "owner=Orla", "new.deep.key=[1, 2]"])
    assert changed["fruits"][0] == {"kind": "apple", "seeds": 7}
    assert changed["owner"] == "Orla"
    assert changed["new"] == {"deep": {"key": [1, 2]}}
    assert content["fruits"][0] == {"kind": "apple"}, "the content given is left as it is"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("owner", "key=value"),
        ("=3", "key=value"),
        ("fruits.9.seeds=1", "9 is not a place in a list of 1"),
        ("owner.first=x", "no key below a value such as 'a'"),
        ("owner=[1", "not YAML"),
    ],
)
def test_a_setting_that_leads_nowhere(setting: str, words: str) -> None:
    with pytest.raises(ValueError, match="--set") as caught:
        with_settings({"owner": "a", "fruits": [{"kind": "apple"}]}, [setting])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "owner: is needed"),
        ({"owner": 3}, "owner: Input should be a valid string (given: 3)"),
        ({"owner": "a", "fruit": []}, "fruit: there is no such key; did you mean fruits? accepted here: fruits, owner"),
        ({"owner": "a", "fruits": [{"kind": "plum"}]}, "fruits.0.kind: unknown 'plum'; accepted: 'apple', 'pear'"),
        ({"owner": "a", "fruits": [{"kind": "apple", "seed": 1}]}, "did you mean seeds? accepted here: kind, seeds"),
        (
            {"owner": "a", "fruits": [{"kind": "apple", "seeds": "x"}]},
            "fruits.0.seeds: Input should be a valid integer",
        ),
        ({"owner": "a", "fruits": [{"seeds": 1}]}, "fruits.0.kind: is needed and not given; accepted: apple, pear"),
        ({"owner": "a", "fruits": ["apple"]}, "fruits.0: a mapping of keys to values is expected (given: 'apple')"),
        (
            {"owner": "a", "owner:b": None},
            "owner:b: there is no such key; YAML needs a space after the colon; accepted",
        ),
        ({"owner": "a", "fruits": "apple"}, "fruits: a list is expected (given: 'apple')"),
    ],
)
def test_mistakes_name_key_value_and_what_is_accepted(content: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=r"basket\.yaml") as caught:
        validated(Basket, content, where="basket.yaml")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2\n", "occurs twice"),
        ("- 1\n", "a mapping of keys to values is needed"),
        ("", "a mapping of keys to values is needed"),
        ("a: [1\n", "is not YAML"),
        ("a: &x [1]\nb: *x\n", "aliases are not accepted"),
        ("a: !!python/object/apply:os.getcwd []\n", "is not YAML"),
    ],
)
def test_hostile_yaml_is_one_clear_error(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"c\.yaml") as caught:
        read_yaml(path)
    assert words in str(caught.value)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        read_yaml(tmp_path / "none.yaml")
