"""The examples of docs/python.md run, in their order, against a real Prefect server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import overedit


def examples(repository: Path) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (repository / "docs" / "python.md").read_text(), re.DOTALL))


@pytest.mark.slow
def test_every_example_runs(
    repository: Path, prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(examples(repository), "docs/python.md", "exec"), names)
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
    assert names["worst"].columns == ["prompt", "target", "output"]
    assert names["leaderboard"].num_rows > 0
    assert [run.name for run in names["results"].runs()] == ["first-look"]


def test_every_name_is_documented(repository: Path) -> None:
    text = examples(repository)
    for name in overedit.__all__:
        assert f"overedit.{name}" in text or name in ("DatasetInfo", "MethodInfo", "Results", "Run"), name
        assert getattr(overedit, name).__doc__
