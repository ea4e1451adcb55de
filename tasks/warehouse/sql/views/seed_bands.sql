-- The effect of the order of the edits: each measure over the orderings (order seeds) of a run.
--
-- measure     those of reliability_by_edit_count with their protocol; also capability (mean of the tasks' headline metrics)
--             and perplexity_ratio (the worst of the corpora), which have no protocol
-- protocol    generated | teacher_forced | probability; null for a measure without protocols
-- num_orders  number of orderings with a value
-- mean, low, high  over these, with Student's 95 % interval, which assumes random orderings; null for one ordering.
--             For shares it is cut at 0 and 1. Mean and interval are null if a value is not finite
-- lowest, highest  over the orderings
-- reason      why there is no mean or no interval
WITH measured AS (
    SELECT run, trajectory, label, method, model, dataset, edit_count, measure, protocol, value, true AS is_share
    FROM reliability_by_edit_count
    UNION ALL
    SELECT run, trajectory, label, method, model, dataset, edit_count, 'capability', NULL, value, true
    FROM capability_by_edit_count WHERE task = 'mean'
    UNION ALL
    SELECT run, trajectory, label, method, model, dataset, edit_count, 'perplexity_ratio', NULL, max(ratio), false
    FROM perplexity_by_edit_count
    GROUP BY run, trajectory, label, method, model, dataset, order_seed, edit_count
),
sums AS (
    SELECT
        run, trajectory, method, model, dataset, edit_count, measure, protocol, is_share, count(value) AS num_orders,
        -- an ordering that has not ended yet has the method as its label
        coalesce(max(label) FILTER (label <> method), method) AS label,
        bool_and(isfinite(value)) AS is_finite,
        avg(value) FILTER (isfinite(value)) AS finite_mean,
        t95(num_orders - 1) * stddev_samp(value) FILTER (isfinite(value)) / sqrt(num_orders) AS margin,
        min(value) AS lowest, max(value) AS highest
    FROM measured
    WHERE value IS NOT NULL
    GROUP BY run, trajectory, method, model, dataset, edit_count, measure, protocol, is_share
)
SELECT
    run, trajectory, label, method, model, dataset, edit_count, measure, protocol, num_orders,
    CASE WHEN is_finite THEN finite_mean END AS mean,
    CASE WHEN is_finite AND margin IS NOT NULL THEN greatest(CASE WHEN is_share THEN 0.0 ELSE '-inf'::DOUBLE END, finite_mean - margin) END AS low,
    CASE WHEN is_finite AND margin IS NOT NULL THEN least(CASE WHEN is_share THEN 1.0 ELSE 'inf'::DOUBLE END, finite_mean + margin) END AS high,
    lowest, highest,
    CASE WHEN NOT is_finite THEN 'a value is not finite' WHEN margin IS NULL THEN 'one ordering alone has no interval' END AS reason
FROM sums
ORDER BY run, trajectory, measure, protocol, edit_count
