"""FT-M: depth-first fine-tuning of one site with the usual loss on the whole target.

"A Comprehensive Study of Knowledge Editing for Large Language Models" (Zhang et al. 2024, arXiv 2401.01286) names it:
FT-L's site, trained with cross-entropy on the target while the prompt is masked. Each request x_i, y_i is trained alone
until its loss is below a threshold, and then never seen again:

    W <- Adam(W, grad 1/|y_i| sum_t -log p_W(y_it | x_i, y_i<t))        until converged, then i + 1

This depth-first order is what LocFT-BF corrects (arXiv 2509.22072, section 2).

Checked against: hand-written loops of plain transformers steps (no golden data).

Differences from common implementations: each target ends with the end-of-sequence token, as in LocFT-BF's comparison
(arXiv 2509.22072, appendix A.1.1), and other models than float32 ones train a float32 copy of the site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import EditResult, Method, Progress, State, silent
from overedit.editing.methods.fine_tuning.depth_first import DepthFirstTuning, fine_tune_depth_first
from overedit.editing.requests import EditRequest


class FtM(DepthFirstTuning):
    """Settings of FT-M; the defaults are those of the depth-first baselines in common use."""

    method: Literal["ft_m"] = "ft_m"
    """The method's name."""


PRESETS: Mapping[str, FtM] = MappingProxyType(
    {  # sites of LocFT-BF, so that the two differ in the order of training alone
        "meta-llama/Meta-Llama-3-8B-Instruct": FtM(site="22.down_proj"),
        "mistralai/Mistral-7B-v0.1": FtM(site="23.layer", learning_rate=5e-5),
        "Qwen/Qwen2.5-7B-Instruct": FtM(site="6.down_proj"),
        # found on 400 edits of the pocket world that are not among the benchmark's
        "pocket": FtM(site="4.down_proj", learning_rate=6e-4, max_steps=50),
    }
)
"""Model id -> settings."""


def ft_m(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    config: FtM,
    state: State,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> EditResult:
    """Train one site on the requests one after the other, each to convergence and with a fresh optimizer.

    Args:
        model: The model to start from; bit-identical on return.
        tokenizer: Its tokenizer.
        requests: This turn's requests, in the order of editing.
        config: Settings.
        state: Not used.
        seed: Not used: nothing is random.
        progress: Told (requests done, requests in all).

    Returns:
        The trained values of the site's parameters, in their own dtype, and no state.

    Raises:
        ValueError: A request that cannot be tokenised to a trainable sample, or a site the model does not have.
    """
    return fine_tune_depth_first(model, tokenizer, requests, config, objective="answer", progress=progress)


METHOD = Method(
    config=FtM,
    function=ft_m,
    label="FT-M",
    paper="A Comprehensive Study of Knowledge Editing for Large Language Models, arXiv 2401.01286",
    presets=PRESETS,
)
