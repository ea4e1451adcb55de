"""The flows that Prefect's deployments start: a benchmark and a scan, by a few parameters that fit into a form."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from typing import Annotated, Any, TypeVar

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.runtime import deployment, flow_run
from pydantic import Field

from overedit.editing.methods.registry import METHODS
from overedit.flows.config.loading import validated
from overedit.flows.config.models import BenchmarkConfig, EditingConfig, ScanConfig
from overedit.flows.config.short_form import ShortForm
from overedit.flows.end_state import run_to_state
from overedit.flows.launch import default_home
from overedit.flows.plan import make_plan
from overedit.flows.scan import make_scan_plan, run_scan_plan
from overedit.tasks.data.options import DATASETS
from overedit.tasks.runs.run import short_name
from overedit.tasks.storage.working_copy import local_home, shown_path
from overedit.tasks.system.progress import shown

logger = logging.getLogger(__name__)

Config = TypeVar("Config", bound=EditingConfig)

_KINDS_OF_TAGS = ("model:", "dataset:", "method:")

# Types of the parameters. What is empty, or 0, is not given. With None as default, the form would offer a choice of
# types for each parameter, and would be refused where one is left out.
Number = Annotated[int, Field(ge=0)]
Choice = Annotated[str, Field(json_schema_extra={"enum": ["", *DATASETS]})]
Choices = list[Annotated[str, Field(json_schema_extra={"enum": list(METHODS)})]]


def flow_run_title() -> str:
    """The flow run's name in the UI: the run's name or configuration, and what was asked for."""
    given = flow_run.parameters
    words = (given.get("name") or given.get("config"), given.get("model"), *(given.get("methods") or ()))
    return " ".join(word for word in (*words, given.get("dataset")) if word) or str(flow_run.flow_name)


@flow(name="benchmark", flow_run_name=flow_run_title, persist_result=False)
def benchmark(
    config: str = "",
    name: str = "",
    model: str = "",
    dataset: Choice = "",
    methods: Choices = [],  # noqa: B006
    edit_counts: list[Number] = [],  # noqa: B006
    limit: Number = 0,
    settings: dict[str, Any] = {},  # noqa: B006
    home: str = "",
) -> State[str]:
    """Edit a model with each method, stop at each edit count, measure what was learned and what broke, publish.

    Args:
        config: A configuration that comes with Overedit, such as demo, or a YAML file. The other fields change it;
            without it, they are the configuration.
        name: The run's name. Left out, it is the configuration's, or is made of model, dataset and methods where other
            fields change the configuration.
        model: A Hugging Face model folder, a hub name, or pocket, the small model that comes with Overedit.
        dataset: Where the edits come from. Your own file needs dataset.path in the settings.
        methods: The methods to compare, with their settings in the configuration or those published for the model.
        edit_counts: The numbers of edits at which the model is measured, in increasing order.
        limit: The most edits to read from the dataset; 0 for as many as the configuration says.
        settings: Further keys of a configuration, such as {"turn_size": 10, "perplexity.corpus": "pocket"}.
        home: The folder of the results, or its URL, e.g. s3://bucket/results. Left out, it is OVEREDIT_HOME on the
            worker, or ~/overedit.

    Returns:
        A state whose name says whether numbers moved since the accepted instance, with the path of the report page.
    """
    values = {"edit_counts": edit_counts, "dataset.limit": limit}
    form = ShortForm(config, name, model, dataset, methods, values, settings)
    with _prepared(home):
        plan = make_plan(_checked(BenchmarkConfig, form), show=shown, changed=True)
        return run_to_state(plan, requested_by=requested_by())


@flow(name="scan", flow_run_name=flow_run_title, persist_result=False)
def scan(
    config: str = "",
    name: str = "",
    model: str = "",
    dataset: Choice = "",
    methods: Choices = [],  # noqa: B006
    corpus: str = "",
    limit: Number = 0,
    settings: dict[str, Any] = {},  # noqa: B006
    home: str = "",
) -> str:
    """Edit a model with each request alone, find those that break it by themselves, and save them as a dataset.

    Args:
        config: A configuration that comes with Overedit, such as scan-counterfact, or a YAML file. The other fields
            change it; without it, they are the configuration.
        name: The run's name. Left out, it is the configuration's, or is made of model, dataset and methods where other
            fields change the configuration.
        model: A Hugging Face model folder, a hub name, or pocket, the small model that comes with Overedit.
        dataset: Where the edits come from. Your own file needs dataset.path in the settings.
        methods: The methods to scan with, with their settings in the configuration or those published for the model.
        corpus: The text on which perplexity is measured: a file, a dataset on the hub, or pocket.
        limit: The most edits to read from the dataset; 0 for as many as the configuration says.
        settings: Further keys of a configuration, such as {"perplexity.limit": 50, "dataset.path": "/data/rows.json"}.
        home: The folder of the results, or its URL, e.g. s3://bucket/results. Left out, it is OVEREDIT_HOME on the
            worker, or ~/overedit.

    Returns:
        A line per method: the number of hard cases, and their file.
    """
    values = {"perplexity.corpus": corpus, "dataset.limit": limit}
    form = ShortForm(config, name, model, dataset, methods, values, settings)
    with _prepared(home):
        plan = make_scan_plan(_checked(ScanConfig, form), show=shown)
        return run_scan_plan(plan, wait=False)


@contextmanager
def _prepared(home: str) -> Iterator[None]:
    """Work in the home, below which relative paths are, and log what Overedit says of its progress.

    Raises:
        ValueError: The home is a relative path, which would be below a folder that the worker removes.
    """
    folder = local_home(home).expanduser() if home else default_home()
    if not folder.is_absolute():
        raise ValueError(f"home: {str(folder)!r} is not an absolute path; give one, or leave it out")
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("overedit").setLevel(logging.INFO)  # Prefect's own configuration has WARNING for all packages
    logger.info("results are in %s; asked for: %s", shown_path(folder), requested_by())
    with chdir(folder):
        yield


def _checked(model: type[Config], form: ShortForm) -> Config:
    """The configuration; its model, dataset and methods become tags of the flow run."""
    config = validated(model, form.content(), where=form.where)
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        others = {
            tag for tag in context.flow_run.tags if not tag.startswith(_KINDS_OF_TAGS)
        }  # not the deployment's own
        with get_client(sync_client=True) as client:
            client.update_flow_run(context.flow_run.id, tags=sorted(others | run_tags(config)))
    return config


def run_tags(config: EditingConfig) -> set[str]:
    """The tags by which Prefect's UI finds the flow runs of a model, a dataset or a method."""
    methods = {f"method:{method.method}" for method in config.methods}
    return {f"model:{short_name(config.model)}", f"dataset:{config.dataset.name}", *methods}


def requested_by() -> str:
    """Who asked for the flow run: a schedule, a person by the UI or Prefect's API, or Python code."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or deployment.name is None:
        return "python"
    name = f"{flow_run.flow_name}/{deployment.name}"
    return f"schedule of {name}" if context.flow_run.auto_scheduled else f"by hand in Prefect, deployment {name}"
