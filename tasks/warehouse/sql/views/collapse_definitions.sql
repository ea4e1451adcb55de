-- The collapse of each trajectory by several definitions, one row each; collapse_point has this project's own definition.
--
-- definition   practical    capability's upper bound, less chance, is below 80 % of the base's, less chance
--              significant  the pooled items are answered worse than before editing (capability_change: Holm-adjusted
--                           p < 0.05) from this edit count on and at every later one. As it must hold at the last one too,
--                           looking at many edit counts raises no more false alarms than the last one alone
--              perplexity   above 1,000, or 10 times the base's, or not a number (The Butterfly Effect of Model Editing,
--                           Yang et al. 2024, calls a perplexity beyond 1,000 collapsed)
--              muted        capability can no longer be told from chance (its lower bound is not above it; no verdict if
--                           that is true of the base as well), or more than half of the outputs are empty (Should We Really Edit
--                           Language Models?, Li et al. 2024: "muting")
--              forgotten    generated reliability's upper bound is below half of its best value so far
-- collapse_at  the first measured edit count at which it holds; null if at none
-- last_good    the last measured edit count before that; without collapse the last measured one
-- detail       the numbers at collapse_at; why there is no verdict if last_good is null
WITH means AS (
    SELECT run, trajectory, order_seed, edit_count, value, low, high, coalesce(chance, 0) AS chance
    FROM capability_by_edit_count WHERE task = 'mean' AND value IS NOT NULL
),
against AS (
    SELECT m.*, b.value AS base, b.low AS base_low
    FROM means AS m JOIN (FROM means WHERE edit_count = 0) AS b USING (run, trajectory, order_seed)
),
practical AS (
    SELECT
        run, trajectory, order_seed, edit_count, 'practical' AS definition,
        high - chance < practical_share() * (base - chance) AS is_met,
        format('capability at most {:.1f} %, {:.1f} % before editing, chance {:.1f} %', 100 * high, 100 * base, 100 * chance) AS detail
    FROM against WHERE base > chance
),
worse AS (
    SELECT
        *, difference < 0 AND p_adjusted < 0.05 AS is_worse
    FROM capability_change WHERE task = 'all'
),
significant AS (
    SELECT
        run, trajectory, order_seed, edit_count, 'significant' AS definition,
        bool_and(is_worse) OVER (PARTITION BY run, trajectory, order_seed ORDER BY edit_count DESC) AS is_met,
        format('{} items lost, {} gained of {}, p {:.2g}', num_lost, num_gained, n, p_adjusted) AS detail
    FROM worse
),
perplexity_high AS (
    SELECT
        run, trajectory, order_seed, edit_count, 'perplexity' AS definition,
        NOT isfinite(value) OR value > 1000 OR coalesce(ratio > 10, false) AS is_met,
        format('perplexity {:.3g}', value) || coalesce(format(', {:.3g} times that before editing', ratio), '') AS detail
    FROM perplexity_by_edit_count
),
at_chance AS (
    SELECT
        run, trajectory, order_seed, edit_count, 'muted' AS definition, low <= chance AS is_met,
        format('capability {:.1f} % (at least {:.1f} %), chance {:.1f} %', 100 * value, 100 * low, 100 * chance) AS detail
    FROM against WHERE base_low > chance
),
empty_texts AS (
    SELECT
        run, trajectory, order_seed, edit_count, 'muted' AS definition, empty > 0.5 AS is_met,
        format('{:.1f} % of the outputs are empty', 100 * empty) AS detail
    FROM text_health
),
peaks AS (
    SELECT
        *, max(value) OVER (PARTITION BY run, trajectory, order_seed ORDER BY edit_count) AS peak
    FROM reliability_by_edit_count WHERE measure = 'reliability' AND protocol = 'generated' AND value IS NOT NULL
),
forgotten AS (
    SELECT
        run, trajectory, order_seed, edit_count, 'forgotten' AS definition, high < 0.5 * peak AS is_met,
        format('reliability at most {:.1f} %, best {:.1f} %', 100 * high, 100 * peak) AS detail
    FROM peaks
),
checks AS (
    FROM practical UNION ALL FROM significant UNION ALL FROM perplexity_high UNION ALL FROM at_chance UNION ALL FROM empty_texts
    UNION ALL FROM forgotten
),
firsts AS (
    SELECT
        run, trajectory, order_seed, definition, min(edit_count) FILTER (is_met AND edit_count > 0) AS collapse_at,
        max(edit_count) AS measured_up_to
    FROM checks
    GROUP BY run, trajectory, order_seed, definition
),
details AS (
    SELECT
        run, trajectory, order_seed, definition, any_value(collapse_at) AS collapse_at, any_value(measured_up_to) AS measured_up_to,
        max(edit_count) FILTER (collapse_at IS NULL OR edit_count < collapse_at) AS last_before,
        string_agg(detail, '; ' ORDER BY detail) FILTER (is_met AND edit_count = collapse_at) AS detail
    FROM checks JOIN firsts USING (run, trajectory, order_seed, definition)
    GROUP BY run, trajectory, order_seed, definition
),
definitions(definition, rank, unknown) AS (
    VALUES
        ('practical', 1, 'no capability above chance before editing to compare with'),
        ('significant', 2, 'no items that were asked before and after editing'),
        ('perplexity', 3, 'perplexity was not measured'),
        ('muted', 4, 'neither capability above chance before editing nor generated outputs'),
        ('forgotten', 5, 'reliability was not measured under the protocol generated')
)
SELECT
    run, trajectory, label, method, model, dataset, order_seed, definition, collapse_at,
    -- the pristine model is good by definition
    CASE WHEN measured_up_to > 0 THEN coalesce(last_before, 0) END AS last_good,
    CASE WHEN coalesce(measured_up_to, 0) > 0 THEN detail ELSE unknown END AS detail
FROM trajectories
CROSS JOIN definitions
LEFT JOIN details USING (run, trajectory, order_seed, definition)
ORDER BY run, trajectory, order_seed, rank
