"""FT-M: depth-first fine-tuning of one site with the usual loss on the whole target.

"A Comprehensive Study of Knowledge Editing for Large Language Models" (Zhang et al. 2024, arXiv 2401.01286) names it:
FT-L's site, trained with cross-entropy on the target while the prompt is masked. Each request x_i, y_i is trained alone
until its loss is below a threshold, and then never seen again:

    W <- Adam(W, grad 1/|y_i| sum_t -log p_W(y_it | x_i, y_i<t))        until converged, then i + 1

This depth-first order is what LocFT-BF corrects (arXiv 2509.22072, section 2).

Checked against: hand-written training loops of plain transformers (no golden data).

Differences from common implementations: each target ends with the end-of-sequence token, as in LocFT-BF's comparison
(arXiv 2509.22072, appendix A.1.1), and models in other dtypes than float32 train a float32 copy of the site.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from overedit.editing.methods.base import Method, Range
from overedit.editing.methods.fine_tuning.depth_first import DepthFirstTuning, fine_tune_depth_first


class FtM(DepthFirstTuning):
    """Settings of FT-M; the defaults are those of the depth-first baselines in common use."""

    method: Literal["ft_m"] = "ft_m"
    """The method's name."""


PRESETS: Mapping[str, FtM] = MappingProxyType(
    {  # sites of LocFT-BF, so that the two differ in the order of training alone
        "meta-llama/Meta-Llama-3-8B-Instruct": FtM(site="22.down_proj"),
        "mistralai/Mistral-7B-v0.1": FtM(site="23.layer", learning_rate=5e-5),
        "Qwen/Qwen2.5-7B-Instruct": FtM(site="6.down_proj"),
        # chosen by a search on edits that no benchmark of the pocket world has: tasks/pocket_world/presets
        "pocket": FtM(site="4.down_proj", learning_rate=1.305e-3, max_steps=47, stop_below=0.04446),
    }
)
"""Model id -> settings."""


ft_m = fine_tune_depth_first
"""Train one site on the requests one after the other, each with the loss on its whole target."""

RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "learning_rate": Range(low=1e-5, high=1e-2, log=True),
        "max_steps": Range(low=5, high=100, log=True),
        "stop_below": Range(low=1e-3, high=1e-1, log=True),
    }
)
"""Setting -> the values among which a search chooses, for models of any size."""

METHOD = Method(
    config=FtM,
    function=ft_m,
    label="FT-M",
    paper="A Comprehensive Study of Knowledge Editing for Large Language Models, arXiv 2401.01286",
    presets=PRESETS,
    ranges=RANGES,
)
