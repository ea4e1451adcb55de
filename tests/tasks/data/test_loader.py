"""Which edits a run reads, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.options import DatasetOptions, FileColumns
from tests.support.dataset_rows import FEVER, ROME, WIKIBIGEDIT, asked, edit, mquake, read, written


def test_mquake_cases_stay_together_in_any_order(tmp_path: Path) -> None:
    cases = [mquake(case, f"a{case}=1", f"b{case}=1", f"c{case}=1") for case in range(20)]
    path = written(tmp_path, cases)
    ids = [request.case_id for request in read(path, "mquake", order_seed=4)]
    assert ids != [request.case_id for request in read(path, "mquake")]
    assert [ids[i].split(".") for i in range(0, 60, 3)] == [[ids[i + 2].split(".")[0], "1"] for i in range(0, 60, 3)]
    assert asked(read(path, "mquake", limit=5)) == {"0.1": [], "0.2": [], "0.3": ["q0"], "1.1": [], "1.2": []}


def test_order_is_seeded_and_a_larger_limit_only_adds(tmp_path: Path) -> None:
    path = written(tmp_path, [edit(f"p{i}", "t") for i in range(50)])
    in_file = [request.case_id for request in read(path)]
    assert in_file == [f"row-{i}" for i in range(1, 51)]
    seven, again, other = (read(path, order_seed=seed) for seed in (7, 7, 8))
    assert seven == again != other
    assert {request.case_id for request in seven} == set(in_file)
    assert read(path, order_seed=7, limit=20) == seven[:20]
    assert read(path, limit=3) == read(path)[:3]


def test_a_limit_beyond_the_data_says_how_many_there_are(tmp_path: Path) -> None:
    path = written(tmp_path, [edit("a", "b"), edit("a", "b"), edit("c", "d")])
    with pytest.raises(
        ValueError, match=r"limit: 3 is more than the 2 edits that .* has \(3 rows, 1 of them duplicates"
    ):
        read(path, limit=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "zrse"}, "unknown dataset 'zrse'; did you mean 'zsre'.*known: pocket, zsre, counterfact"),
        ({"name": 5}, "unknown dataset 5 "),
        ({"name": "file"}, "dataset 'file' needs `path`"),
        ({"name": "zsre", "columns": {"prompt": "q"}}, "`columns` is for dataset 'file'"),
        ({"name": "zsre", "path": "x.json", "hub": "a/b"}, "`hub` is for a dataset of the hub"),
        ({"name": "pocket", "path": "x.json"}, "takes no `path`"),
        ({"name": "mquake"}, "'mquake' has no known source on the dataset hub; name a local file by `path`"),
        ({"name": "fever", "files": ["x"]}, "name a local file by `path`"),
        ({"name": "hardcf", "path": "x.json", "split": "test"}, "`split` is for a dataset of the hub, not for x.json"),
        ({"name": "pocket", "files": ["x"]}, "`files` is for a dataset of the hub, not for 'pocket'"),
        ({"name": "zsre", "limit": 0}, "limit"),
        ({"name": "zsre", "conflict": "last"}, "conflict\n"),
        ({"name": "file", "path": "x", "columns": {"promt": "q"}}, "columns.promt"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DatasetOptions(**options)


def test_options_survive_json() -> None:
    options = DatasetOptions(name="file", path=Path("x.json"), columns=FileColumns(prompt="q"), order_seed=None)
    assert DatasetOptions.model_validate_json(options.model_dump_json()) == options


def test_hub_rows_go_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: dict[str, Any] = {}

    def load_dataset(dataset_id: str, **options: Any) -> Any:
        asked.update(options, dataset_id=dataset_id)
        return datasets.Dataset.from_list([ROME, ROME | {"case_id": 4}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    requests, report = load_requests(DatasetOptions(name="counterfact", revision="abc", order_seed=None))
    assert asked == {"dataset_id": "azhx/counterfact", "data_files": None, "split": "train+test", "revision": "abc"}
    assert [request.case_id for request in requests] == ["3"]
    assert report.deduplicated.duplicates == (("4", "3"),)
    assert report.source == "azhx/counterfact (train+test, abc)"


def test_files_and_places_on_the_hub_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[str, Any, str]] = []

    def load_dataset(dataset_id: str, **options: Any) -> Any:
        asked.append((dataset_id, options["data_files"], options["split"]))
        return datasets.Dataset.from_list([WIKIBIGEDIT if "Big" in dataset_id else FEVER])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    interval = "wiki_big_edit_20240201_20240220.json"
    report = load_requests(DatasetOptions(name="wikibigedit", files=(interval,))).report
    load_requests(DatasetOptions(name="fever", hub="some/fever"))
    assert asked == [("lukasthede/WikiBigEdit", [interval], "train"), ("some/fever", None, "train")]
    assert interval in report.source


def test_pocket_edits() -> None:
    requests, report = load_requests(DatasetOptions(limit=25, order_seed=3))
    assert len(requests) == report.num_requests == 25
    assert len({request.case_id for request in requests}) == 25
    assert (report.deduplicated.overwritten, report.deduplicated.duplicates) == ({}, ())
    assert requests[:5] == tuple(load_requests(DatasetOptions(limit=5, order_seed=3)).requests)
