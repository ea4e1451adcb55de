"""What every vLLM engine imports when it starts; imported inside `starting_vllm` by a process that forks engines."""

from importlib import import_module

from overedit.tasks.engine.lm_eval_adapters import without_progress_bars
from overedit.tasks.engine.vllm_environment import register_in_process, vllm_language_model

for name in (
    "lm_eval.evaluator",
    "overedit.tasks.engine.server",
    "overedit.tasks.engine.transformers_engine",
    "overedit.tasks.engine.vllm_engine",
    "transformers.models.auto.modeling_auto",
    "vllm.entrypoints.llm",
    "vllm.v1.engine.llm_engine",
    "vllm.v1.worker.cpu_worker",
):
    import_module(name)
without_progress_bars(vllm_language_model())
register_in_process(["LlamaForCausalLM"])
