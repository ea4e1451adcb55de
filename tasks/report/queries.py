"""What the report asks the warehouse: views as they are, and a few questions of its own."""

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
"""The views whose edit counts are those of the run."""
FURTHER_VIEWS = (
    "preset_scores",
    "seed_bands",
    "capability_change",
    "collapse_definitions",
    "retention_half_life",
    "probe_correlation",
    "early_warning",
    "capability_gating",
)
"""Views that a section each is made of, where they have rows."""
VIEWS = ("leaderboard", "collapse_point", *CURVES, "edit_speed", *FURTHER_VIEWS)
"""The views that the report reads, each as `SELECT * FROM view WHERE run = ...`."""
BENEATH = (
    "reliability_vs_capability",
    "diagnostics_by_turn",
    "probes_by_edit_count",
    "preset_measures",
    "preset_outcomes",
    "trajectories",
    "common",
    "statistics",
    "text",
)
"""What those views are made of."""

RUNS = "SELECT * FROM runs WHERE run = $run ORDER BY started_at, trajectory, order_seed"

CASES = """
WITH edited AS (
    SELECT DISTINCT position, case_id, target AS new_fact
    FROM outcomes
    WHERE run = $run AND probe = 'edit' AND protocol = 'generated' AND method <> 'none'
        AND (order_seed, edit_count) = (
            SELECT (min(order_seed), max(edit_count)) FROM outcome_sums
            WHERE run = $run AND probe = 'edit' AND protocol = 'generated' AND method <> 'none'
        )
),
ranked AS (
    SELECT *, row_number() OVER (ORDER BY position) AS place, count(*) OVER () AS places FROM edited
),
chosen AS (
    SELECT case_id, position AS edit_number, new_fact FROM ranked
    WHERE place IN (
        1, round(places ** 0.25), round(places ** 0.5), round(places ** 0.75),
        round(places * 0.25), round(places * 0.5), round(places * 0.75), places
    )
),
-- another order of a generated dataset may have another new fact under the same name
the_same AS (
    SELECT DISTINCT order_seed, case_id FROM outcomes JOIN chosen USING (case_id)
    WHERE run = $run AND probe = 'edit' AND protocol = 'generated' AND target = new_fact
)
SELECT
    edit_number, case_id, trajectory, method, order_seed, edit_count, position, probe, prompt,
    left(target, 161) AS target, left(output, 161) AS output, score, agreement
FROM outcomes JOIN chosen USING (case_id) SEMI JOIN the_same USING (order_seed, case_id)
WHERE run = $run AND protocol = 'generated' AND probe IN ('edit', 'rephrase', 'locality')
QUALIFY probe_index = min(probe_index) OVER (PARTITION BY case_id, probe)
ORDER BY edit_number, probe, edit_count, trajectory, order_seed
"""
"""The first, the last and six more of the edits asked, spread over age: what each checkpoint answered, of each kind of
prompt the first."""

UPDATES = """
SELECT trajectory, order_seed, edit_count, quantity, max(value) AS value
FROM diagnostics_by_turn
WHERE run = $run AND site IS NOT NULL AND quantity IN ('preservation', 'update_norm') AND value > 0
GROUP BY ALL
ORDER BY edit_count
"""
"""Of the turns between two edit counts and the projections edited, the one with the largest update."""

CHECKPOINTS = """
WITH texts AS (
    SELECT trajectory, order_seed, edit_count, max(ratio) AS ratio
    FROM perplexity_by_edit_count WHERE run = $run GROUP BY ALL
)
SELECT trajectory, order_seed, edit_count, CASE WHEN isfinite(ratio) THEN ratio END AS ratio, value, low, high
FROM capability_by_edit_count JOIN texts USING (trajectory, order_seed, edit_count)
WHERE run = $run AND task = 'mean' AND value IS NOT NULL
ORDER BY trajectory, order_seed, edit_count
"""
"""Each checkpoint's perplexity over the pristine model's (the worst of the corpora), and its mean capability."""

STAGES = """
SELECT trajectory, method, order_seed, stage, sum(seconds) AS seconds, sum(num_items)::BIGINT AS items
FROM costs
WHERE run = $run
GROUP BY ALL
ORDER BY trajectory, order_seed, stage
"""
"""What each stage took over a whole trajectory; the pristine model's and the engine's starts are nobody's own."""
