"""The pocket model's lm-eval scores."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.engine.transformers_engine import TransformersEngine
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.pocket_world.lm_eval_items import write_lm_eval_tasks


def lm_eval_scores(model: Path) -> dict[str, float]:
    """Evaluate a model folder with lm-eval on the transformers engine, in float32.

    Returns:
        The score of each task, in [0, 1], by its name.
    """
    engine = TransformersEngine(ModelReference(str(model)), EngineOptions(dtype="float32"))
    with TemporaryDirectory() as folder:
        evaluated = simple_evaluate(
            model=engine.language_model(),
            tasks=write_lm_eval_tasks(Path(folder)),
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            bootstrap_iters=0,
        )
    engine.close()
    return {
        task: float(next(figures[key] for key in ("acc,none", "exact_match,answer") if key in figures))
        for task, figures in evaluated["results"].items()
    }
