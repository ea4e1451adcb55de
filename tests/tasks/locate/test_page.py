"""Heat maps, page and sentences of a search among sites, on made-up rankings."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from overedit.tasks.locate.heat_maps import heat_maps, save_picture
from overedit.tasks.locate.page import render_sites, write_sites_page
from overedit.tasks.locate.ranking import Ranking, proposal, ranking_table

Row = dict[str, Any]


def row(site: str, score: float | None, rank: int, *, split: str = "validation", **more: Any) -> Row:
    layer, part = site.split(".")
    names = ("reliability", "generalization", "locality", "capability_kept")
    behind = None if score is None else score - 0.9
    return {
        "site": site, "layer": int(layer), "part": part, "split": split, "rank": rank, "label": "LocFT-BF",
        "model": "<b>m</b>", "dataset": "d", "edit_count": 60, "num_seeds": 1,
        "proposed": rank == 1 and split == "validation",
        "score": score, "low": score and score - 0.05, "high": score and score + 0.05, "behind": behind,
        "behind_low": behind and behind - 0.02, "behind_high": behind and behind + 0.02, "perplexity_ratio": 1.5,
        "seconds": 6.0, "reason": None, **dict.fromkeys(names, score), "capability_kept": None, **more,
    }  # fmt: skip


VALIDATION = [
    row("1.down_proj", 0.9, 1),
    row("0.mlp", 0.7, 2),
    row("0.layer", None, 3, reason="the weights are <not> finite"),
]
TEST = [row("0.mlp", 0.9, 1, split="test"), row("1.down_proj", 0.8, 2, split="test")]
RANKING = Ranking("where", "generated", VALIDATION, TEST)


class Checker(HTMLParser):
    """Checks that every tag is closed, and keeps what would be loaded or run."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "link"}:
            self.open.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_loads_nothing_and_runs_nothing(tmp_path: Path) -> None:
    path = write_sites_page([RANKING], tmp_path / "reports" / "where.locate.html")
    content = path.read_text()
    checker = Checker()
    checker.feed(content)
    assert checker.open == []
    assert checker.loaded == ["data:,"]
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', content)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    assert "<script" not in content and "{{" not in content
    assert "<b>m</b>" not in content and "are &lt;not&gt; finite" in content
    assert content.count("<figure>") == 4, "one map per measure that some site has"


def test_a_map_has_a_row_per_layer_a_column_per_part_and_readable_numbers() -> None:
    heat = heat_maps(VALIDATION)[0]
    assert (heat.title, heat.layers, heat.parts) == ("Score", [0, 1], ["layer", "mlp", "down_proj"])
    assert heat.values == [[None, 0.7, None], [None, None, 0.9]]
    assert (heat.low, heat.high) == pytest.approx((0.7, 0.9))
    assert heat.colors(0.9) == ("#fde725", "#101418") and heat.colors(0.7) == ("#440154", "#ffffff")
    (alike,) = heat_maps([row("0.mlp", 1.0, 1, reliability=None, generalization=None, locality=None)])
    assert alike.low < alike.high


def test_the_picture_has_the_same_bytes_for_the_same_rows(tmp_path: Path) -> None:
    save_picture(RANKING, tmp_path / "one.png")
    save_picture(RANKING, tmp_path / "other.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


def test_the_proposal_has_its_interval_the_next_best_and_the_test_edits() -> None:
    assert proposal(RANKING) == (
        "proposes 1.down_proj: 0.90 (0.85 to 0.95); next best 0.mlp: 0.70 (0.65 to 0.75), 0.20 (0.18 to 0.22) behind; "
        "on 60 test edits 1.down_proj: 0.80 (0.75 to 0.85), 0.10 (0.08 to 0.12) behind 0.mlp"
    )
    best_again = RANKING._replace(test=[row("1.down_proj", 0.9, 1, split="test")])
    assert proposal(best_again).endswith("on 60 test edits 1.down_proj: 0.90 (0.85 to 0.95), the best of 1 sites")
    nothing = RANKING._replace(validation=[row("0.layer", None, 1, proposed=False)], test=[])
    assert proposal(nothing) == "proposes no site: none has a score"
    assert "proposes no site" in render_sites([nothing])


def test_the_table_fits_a_terminal() -> None:
    console = Console(width=80, record=True, file=StringIO())
    console.print(ranking_table(RANKING))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "1.down_proj" in text and "0.85-0.95" in text
