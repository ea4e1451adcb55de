"""The dbt project's models run over a published warehouse, as dbt would run them: rendered, on an attached database."""

from __future__ import annotations

from pathlib import Path

import duckdb
import jinja2
import pytest
import yaml

from tests.support.synthetic_run import fill


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    fill(folder / "warehouse", cases=10, by_count=False).publish()
    return folder


def test_the_models_run_over_a_warehouse(repository: Path, home: Path, tmp_path: Path) -> None:
    project = repository / "deployments" / "examples" / "dbt"
    (output,) = yaml.safe_load((project / "profiles.yml").read_text())["overedit"]["outputs"].values()
    (attached,) = output["attach"]
    (source,) = yaml.safe_load((project / "models" / "sources.yml").read_text())["sources"]
    (model,) = yaml.safe_load((project / "models" / "models.yml").read_text())["models"]
    config = yaml.safe_load((project / "dbt_project.yml").read_text())["models"]["overedit_models"]
    path, before = (
        jinja2.Template(text).render(env_var=lambda name, default: {"OVEREDIT_HOME": str(home)}[name])
        for text in (attached["path"], config["+pre-hook"])
    )

    def relation(of: str, table: str) -> str:
        assert of == source["name"] and table in [one["name"] for one in source["tables"]]
        return f'"{source["database"]}"."{source["schema"]}"."{table}"'

    sql = jinja2.Template((project / "models" / f"{model['name']}.sql").read_text()).render(source=relation)
    with duckdb.connect(str(tmp_path / output["path"])) as connection:
        connection.execute(f"ATTACH '{path}' AS {attached['alias']} (READ_ONLY)")
        connection.execute(before)
        connection.execute(f"CREATE TABLE {model['name']} AS {sql}")
        found = connection.sql(f"FROM {model['name']}").to_arrow_table().to_pylist()
    assert {row["label"]: row["good_up_to"] for row in found} == {"LocFT-BF": 1000, "UltraEdit": 1000, "FT-L": 1}
    assert all(row["low"] <= row["reliability"] <= row["high"] for row in found)
    for column in model["columns"]:
        assert all(row[column["name"]] is not None for row in found), "the model's own tests"
