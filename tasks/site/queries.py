"""The rows that the site shows, read from the warehouse by the queries of `warehouse/sql/site/`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from overedit.tasks.warehouse.tables import Row
from overedit.tasks.warehouse.views import query_sql
from overedit.tasks.warehouse.warehouse import Warehouse


@dataclass(frozen=True)
class SiteRows:
    """The rows of all runs; each field is the result of the query of its name."""

    trajectories: list[Row] = field(default_factory=list)
    points: list[Row] = field(default_factory=list)
    runs: list[Row] = field(default_factory=list)
    instances: list[Row] = field(default_factory=list)
    history: list[Row] = field(default_factory=list)
    gates: list[Row] = field(default_factory=list)
    accepted: list[Row] = field(default_factory=list)


def read_rows(warehouse: Warehouse) -> SiteRows:
    """Read what the pages show."""
    queries = {one.name: query_sql(f"site/{one.name}") for one in fields(SiteRows)}
    with warehouse.connect(sql="; ".join(queries.values())) as connection:
        return SiteRows(**{name: connection.sql(sql).to_arrow_table().to_pylist() for name, sql in queries.items()})
