"""The methods: one file each, and their registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field

from overedit.editing.locate_then_edit.algorithm import LocateThenEdit
from overedit.editing.method import EditResult, MethodEntry
from overedit.editing.methods import alphaedit as _alphaedit
from overedit.editing.methods import emmet as _emmet
from overedit.editing.methods import ft_l as _ft_l
from overedit.editing.methods import ft_m as _ft_m
from overedit.editing.methods import locft_bf as _locft_bf
from overedit.editing.methods import memit as _memit
from overedit.editing.methods import r_rome as _r_rome
from overedit.editing.methods import rome as _rome
from overedit.editing.methods import ultraedit as _ultraedit
from overedit.editing.methods.alphaedit import AlphaEdit
from overedit.editing.methods.emmet import Emmet
from overedit.editing.methods.ft_l import FtL
from overedit.editing.methods.ft_m import FtM
from overedit.editing.methods.locft_bf import LocftBf
from overedit.editing.methods.memit import Memit
from overedit.editing.methods.r_rome import RRome
from overedit.editing.methods.rome import Rome
from overedit.editing.methods.ultraedit import UltraEdit

MethodConfig = Annotated[
    LocftBf | FtL | FtM | UltraEdit | Rome | RRome | Memit | Emmet | AlphaEdit, Field(discriminator="method")
]
"""The configuration of any method, told apart by its field `method`."""


def _locate_then_edit(config: type[LocateThenEdit], function: Callable[..., EditResult], **words: Any) -> MethodEntry:
    return MethodEntry(
        config=config,
        function=function,
        cumulative=False,
        needs_subject=True,
        sites=lambda config: config.sites,
        covariance=lambda config: config.covariance,
        **words,
    )


METHODS: Mapping[str, MethodEntry] = MappingProxyType(
    {
        "locft_bf": MethodEntry(
            config=LocftBf,
            function=_locft_bf.locft_bf,
            label="LocFT-BF",
            cumulative=True,
            needs_subject=False,
            paper="Fine-tuning Done Right in Model Editing, arXiv 2509.22072",
            presets=_locft_bf.PRESETS,
            sites=lambda config: (config.site,),
        ),
        "ft_l": MethodEntry(
            config=FtL,
            function=_ft_l.ft_l,
            label="FT-L",
            cumulative=False,
            needs_subject=False,
            paper="Modifying Memories in Transformer Models, arXiv 2012.00363",
            presets=_ft_l.PRESETS,
            sites=lambda config: (config.site,),
        ),
        "ft_m": MethodEntry(
            config=FtM,
            function=_ft_m.ft_m,
            label="FT-M",
            cumulative=False,
            needs_subject=False,
            paper="A Comprehensive Study of Knowledge Editing for Large Language Models, arXiv 2401.01286",
            presets=_ft_m.PRESETS,
            sites=lambda config: (config.site,),
        ),
        "ultraedit": MethodEntry(
            config=UltraEdit,
            function=_ultraedit.ultraedit,
            label="UltraEdit",
            cumulative=False,
            needs_subject=False,
            paper="UltraEdit: Training-, Subject-, and Memory-Free Lifelong Editing, arXiv 2505.14679",
            presets=_ultraedit.PRESETS,
            sites=lambda config: config.sites,
        ),
        "rome": _locate_then_edit(
            Rome,
            _rome.rome,
            label="ROME",
            paper="Locating and Editing Factual Associations in GPT, arXiv 2202.05262",
            presets=_rome.PRESETS,
        ),
        "r_rome": _locate_then_edit(
            RRome,
            _r_rome.r_rome,
            label="R-ROME",
            paper="Rebuilding ROME: Resolving Model Collapse during Sequential Model Editing, arXiv 2403.07175",
            presets=_r_rome.PRESETS,
        ),
        "memit": _locate_then_edit(
            Memit,
            _memit.memit,
            label="MEMIT",
            paper="Mass-Editing Memory in a Transformer, arXiv 2210.07229",
            presets=_memit.PRESETS,
        ),
        "emmet": _locate_then_edit(
            Emmet,
            _emmet.emmet,
            label="EMMET",
            paper="A Unified Framework for Model Editing, arXiv 2403.14236",
            presets=_emmet.PRESETS,
        ),
        "alphaedit": _locate_then_edit(
            AlphaEdit,
            _alphaedit.alphaedit,
            label="AlphaEdit",
            paper="AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models, arXiv 2410.02355",
            presets=_alphaedit.PRESETS,
        ),
    }
)
"""Every method by the `method` of its configuration."""
