"""The views that the report shows; its other queries are the files of `warehouse/sql/report/`."""

from __future__ import annotations

CURVES = (
    "reliability_by_edit_count",
    "capability_by_edit_count",
    "retention_by_age",
    "perplexity_by_edit_count",
    "weight_norms",
    "text_health",
    "cost_per_edit",
)
"""Views with a row per edit count: together they have every edit count at which something was measured."""
FURTHER_VIEWS = (
    "preset_scores",
    "seed_bands",
    "capability_change",
    "collapse_definitions",
    "retention_half_life",
    "probe_correlation",
    "early_warning",
    "capability_gating",
    "durability",
    "warnings",
)
"""Views with a section each, which is left out where the view has no rows."""
VIEWS = (
    "leaderboard",
    "collapse_search",
    "collapse_over_orders",
    "collapse_point",
    *CURVES,
    "edit_speed",
    *FURTHER_VIEWS,
)
"""The views that the report reads, each by `SELECT * FROM view WHERE run = ...`."""
SOURCES = (
    "reliability_vs_capability",
    "collapse_checks",
    "diagnostics_by_turn",
    "probes_by_edit_count",
    "preset_measures",
    "preset_outcomes",
    "trajectories",
    "common",
    "statistics",
    "text",
    "pristine",
)
"""The views and macros that VIEWS are built on."""
