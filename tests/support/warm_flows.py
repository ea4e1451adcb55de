"""What a run with the transformers engine imports, but for Prefect; imported by a process that forks runs."""

from importlib import import_module

from tests.support.stage_keys import read_code_once

for name in (
    "overedit.flows.cli.main",
    "overedit.flows.config.loading",
    "overedit.tasks.editing_job.job",
    "overedit.tasks.engine.server",
    "overedit.tasks.engine.transformers_engine",
    "overedit.tasks.evaluation.evaluator",
    "overedit.tasks.report.figures",
    "overedit.tasks.report.page",
    "overedit.tasks.warehouse.warehouse",
    "duckdb",
    "matplotlib.pyplot",
    "matplotlib.backends.backend_agg",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.loss.loss_utils",
):
    import_module(name)
read_code_once()
