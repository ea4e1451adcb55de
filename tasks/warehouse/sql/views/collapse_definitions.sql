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
WITH firsts AS (
    SELECT
        run, trajectory, order_seed, definition, min(edit_count) FILTER (is_met AND edit_count > 0) AS collapse_at,
        max(edit_count) AS measured_up_to
    FROM collapse_checks
    GROUP BY run, trajectory, order_seed, definition
),
details AS (
    SELECT
        run, trajectory, order_seed, definition, any_value(collapse_at) AS collapse_at, any_value(measured_up_to) AS measured_up_to,
        max(edit_count) FILTER (collapse_at IS NULL OR edit_count < collapse_at) AS last_before,
        string_agg(detail, '; ' ORDER BY detail) FILTER (is_met AND edit_count = collapse_at) AS detail
    FROM collapse_checks JOIN firsts USING (run, trajectory, order_seed, definition)
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
