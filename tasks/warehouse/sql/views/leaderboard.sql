-- The paper's table: one row per trajectory, at its last measured edit count, under the generated protocol; after a search
-- for the collapse, at the last one that the model takes.
--
-- reliability, generalization, locality, portability  means; for the first also n and the 95 % interval; null if not measured
-- capability         mean over the lm-eval tasks with its interval; base_capability: the pristine model's
-- capability_difference  from the pristine model on the same items, all tasks pooled, with its paired 95 % interval;
--                    p_value: the exact one of capability_change; p_adjusted: Holm's over the run's trajectories, each at
--                    its last edit count. Null if they have no item in common
-- perplexity_ratio   perplexity over the pristine model's
-- seconds_per_edit   of the step that led to this edit count; peak_memory_bytes: the highest of the whole trajectory
-- takes, last_good, collapse_at, collapse_reason, collapse_confidence  from collapse_point; collapse_at is null without
--                    collapse, collapse_confidence without a search
-- status             completed | failed; null until the trajectory has ended
WITH points AS (
    SELECT
        run, trajectory, order_seed, edit_count,
        max(reliability) FILTER (WHERE protocol = 'generated') AS reliability,
        max(reliability_n) FILTER (WHERE protocol = 'generated') AS reliability_n,
        max(reliability_low) FILTER (WHERE protocol = 'generated') AS reliability_low,
        max(reliability_high) FILTER (WHERE protocol = 'generated') AS reliability_high,
        max(generalization) FILTER (WHERE protocol = 'generated') AS generalization,
        max(locality) FILTER (WHERE protocol = 'generated') AS locality,
        max(portability) FILTER (WHERE protocol = 'generated') AS portability,
        -- the same in the rows of every protocol
        max(capability) AS capability, max(capability_low) AS capability_low, max(capability_high) AS capability_high,
        max(perplexity_ratio) AS perplexity_ratio
    FROM reliability_vs_capability
    GROUP BY run, trajectory, order_seed, edit_count
),
searched AS (
    SELECT run, trajectory, order_seed, takes FROM collapse_search WHERE rank = 1
),
last_points AS (
    SELECT points.* FROM points LEFT JOIN searched USING (run, trajectory, order_seed)
    QUALIFY row_number() OVER (
        PARTITION BY run, trajectory, order_seed
        ORDER BY coalesce(edit_count > 0 AND edit_count <= takes, false) DESC, edit_count DESC
    ) = 1
),
bases AS (
    SELECT run, trajectory, order_seed, capability AS base_capability FROM points WHERE edit_count = 0
),
changes AS (
    SELECT
        run, trajectory, order_seed, edit_count, difference, low, high, p_value,
        row_number() OVER (PARTITION BY run ORDER BY p_value, trajectory, order_seed) AS rank,
        count(*) OVER (PARTITION BY run) AS family
    FROM capability_change JOIN last_points USING (run, trajectory, order_seed, edit_count)
    WHERE task = 'all'
),
adjusted AS (
    SELECT
        *, least(1.0, max((family - rank + 1) * p_value) OVER (PARTITION BY run ORDER BY rank)) AS p_adjusted
    FROM changes
),
editing AS (
    SELECT
        run, trajectory, order_seed, edit_count, seconds_per_edit,
        max(peak_memory_bytes) OVER (PARTITION BY run, trajectory, order_seed) AS peak_memory_bytes
    FROM cost_per_edit
)
SELECT
    run, trajectory, t.label, t.method, t.model, t.dataset, order_seed, edit_count,
    reliability, reliability_n, reliability_low, reliability_high, generalization, locality, portability,
    capability, capability_low, capability_high, base_capability,
    a.difference AS capability_difference, a.low AS capability_difference_low, a.high AS capability_difference_high,
    a.p_value, a.p_adjusted, perplexity_ratio,
    seconds_per_edit, peak_memory_bytes,
    c.takes, c.last_good, c.collapse_at, c.reason AS collapse_reason, c.confidence AS collapse_confidence, t.status
FROM trajectories AS t
LEFT JOIN last_points USING (run, trajectory, order_seed)
LEFT JOIN bases USING (run, trajectory, order_seed)
LEFT JOIN adjusted AS a USING (run, trajectory, order_seed, edit_count)
LEFT JOIN editing USING (run, trajectory, order_seed, edit_count)
LEFT JOIN collapse_point AS c USING (run, trajectory, order_seed)
ORDER BY run, reliability DESC NULLS LAST, capability DESC NULLS LAST, trajectory, order_seed
