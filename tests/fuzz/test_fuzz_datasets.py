"""Whatever a dataset file holds, it is read, or refused with one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.options import DatasetOptions
from tests.fuzz import strategies
from tests.support.fuzzing import Outcome

NAMES = st.sampled_from(["file", "zsre", "counterfact", "wikibigedit", "ultraeditbench"])


@given(content=strategies.datasets, name=NAMES, rule=st.sampled_from(["last", "first", "error"]))
def test_any_file(tmp_path: Path, outcome: Outcome, content: bytes, name: str, rule: Any) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    options = DatasetOptions(name=name, path=path, conflicts=rule)  # type: ignore[arg-type]
    found = outcome(lambda: load_requests(options), "")
    for request in found.requests if found else ():
        assert request.prompt.strip()
        assert request.target_new.strip()
        assert len(request.case_id) <= 256
        request.model_dump_json().encode()  # no half of a surrogate pair came through
    if found:
        assert len({request.case_id for request in found.requests}) == len(found.requests)


@given(text=st.text(st.sampled_from("ab\"'\n\r\t,; \0é{}")), separator=st.sampled_from(["csv", "tsv"]))
def test_any_table(tmp_path: Path, outcome: Outcome, text: str, separator: str) -> None:
    path = tmp_path / f"rows.{separator}"
    path.write_bytes(f"prompt,target_new\n{text}".replace(",", "," if separator == "csv" else "\t").encode())
    found = outcome(lambda: load_requests(DatasetOptions(name="file", path=path)), f"rows.{separator}")
    assert not found or all(request.prompt and request.target_new for request in found.requests)


@given(content=strategies.datasets)
def test_every_error_names_the_file(tmp_path: Path, outcome: Outcome, content: bytes) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    outcome(lambda: load_requests(DatasetOptions(name="file", path=path)), "rows.json")


@given(found=strategies.rows, columns=st.dictionaries(st.sampled_from(["prompt", "subject", "locality"]), st.text()))
def test_any_columns(tmp_path: Path, outcome: Outcome, found: list[Any], columns: dict[str, str]) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(strategies.as_json(found))
    outcome(
        lambda: load_requests(DatasetOptions.model_validate({"name": "file", "path": path, "columns": columns})), ""
    )
