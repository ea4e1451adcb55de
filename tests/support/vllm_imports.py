"""What every vLLM engine imports when it starts; imported inside `starting_vllm` by a process that forks engines."""

from overedit.tasks.engine.lm_eval_adapters import without_progress_bars
from overedit.tasks.engine.vllm_environment import register_in_process, vllm_language_model

LANGUAGE_MODEL = without_progress_bars(vllm_language_model())

register_in_process(["LlamaForCausalLM"])
