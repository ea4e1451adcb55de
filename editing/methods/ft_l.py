"""FT-L: depth-first fine-tuning of one site, the loss read at the prompt's last token only.

The fine-tuning baseline of Meng et al. 2022 (arXiv 2202.05262), named FT-L in Zhang et al. 2024 (arXiv 2401.01286): the
distribution after the prompt's last token must make every token of the target likely at once, as if each came first.
The loss of a request is

    -1/|y_i| sum_t log p_W(y_it | x_i)          (FT-M: -1/|y_i| sum_t log p_W(y_it | x_i, y_i<t))

so with m different target tokens it cannot fall below log m, and longer answers cannot be learned. Optionally no
weight may move further than an L-infinity bound during one request: max |W - W_0| <= epsilon (Zhu et al. 2020, arXiv
2012.00363), kept by clamping after each step.

Checked against: hand-written training loops of plain transformers (no golden data).

Differences from common implementations: each target ends with the end-of-sequence token, as in LocFT-BF's comparison
(arXiv 2509.22072, appendix A.1.1), and models in other dtypes than float32 train a float32 copy of the site.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from overedit.editing.methods.base import Method, Range
from overedit.editing.methods.fine_tuning.depth_first import DepthFirstTuning, fine_tune_depth_first


class FtL(DepthFirstTuning):
    """Settings of FT-L; the defaults are those of the depth-first baselines in common use."""

    method: Literal["ft_l"] = "ft_l"
    """The method's name."""
    objective: Literal["prompt_last", "target_last"] = "prompt_last"
    """`prompt_last`: all target tokens, read at the prompt's last token (the baseline as published). `target_last`: the
    target's last token alone, read after all that comes before it."""
    norm_constraint: float | None = Field(default=None, gt=0)
    """The most that any weight may move during one request; none if null (Zhu et al. 2020)."""

    @property
    def loss_objective(self) -> Literal["prompt_last", "target_last"]:
        """A single position."""
        return self.objective

    @property
    def weight_bound(self) -> float | None:
        """The L-infinity bound."""
        return self.norm_constraint


PRESETS: Mapping[str, FtL] = MappingProxyType(
    {  # sites of LocFT-BF, so that the methods differ in loss and order of training alone
        "meta-llama/Meta-Llama-3-8B-Instruct": FtL(site="22.down_proj"),
        "mistralai/Mistral-7B-v0.1": FtL(site="23.layer", learning_rate=5e-5),
        "Qwen/Qwen2.5-7B-Instruct": FtL(site="6.down_proj"),
        # a search on edits that no benchmark of the pocket world has found nothing better: tasks/pocket_world/presets
        "pocket": FtL(site="4.down_proj", learning_rate=1e-3),
    }
)
"""Model id -> settings."""


ft_l = fine_tune_depth_first
"""Train one site on the requests one after the other, each with the loss read at a single position."""

RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "learning_rate": Range(low=1e-5, high=1e-2, log=True),
        "max_steps": Range(low=5, high=100, log=True),
        "norm_constraint": Range(choices=(None, 1e-4, 3e-4, 1e-3, 3e-3)),
    }
)
"""Setting -> the values among which a search chooses, for models of any size."""

METHOD = Method(
    config=FtL,
    function=ft_l,
    label="FT-L",
    paper="Modifying Memories in Transformer Models, arXiv 2012.00363",
    presets=PRESETS,
    ranges=RANGES,
)
