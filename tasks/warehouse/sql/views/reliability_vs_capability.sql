-- Reliability and its relatives next to capability: one row per edit count and protocol of a trajectory.
--
-- protocol           generated | teacher_forced | probability
-- reliability, generalization, locality, portability  under the row's protocol; reliability_low, _high, _n: its interval
-- capability, capability_low, capability_high  mean over the lm-eval tasks; null if it was not measured
-- capability_share   capability over the pristine model's, both less chance (an unknown chance counts as 0)
-- perplexity_ratio   perplexity over the pristine model's (the worst of the corpora)
WITH learned AS (
    SELECT
        run, trajectory, label, method, model, dataset, order_seed, edit_count, protocol,
        max(value) FILTER (WHERE measure = 'reliability') AS reliability,
        max(n) FILTER (WHERE measure = 'reliability') AS reliability_n,
        max(low) FILTER (WHERE measure = 'reliability') AS reliability_low,
        max(high) FILTER (WHERE measure = 'reliability') AS reliability_high,
        max(value) FILTER (WHERE measure = 'generalization') AS generalization,
        max(value) FILTER (WHERE measure = 'locality') AS locality,
        max(value) FILTER (WHERE measure = 'portability') AS portability
    FROM reliability_by_edit_count
    GROUP BY run, trajectory, label, method, model, dataset, order_seed, edit_count, protocol
),
means AS (
    SELECT * FROM capability_by_edit_count WHERE task = 'mean'
),
kept AS (
    SELECT
        run, trajectory, order_seed, m.edit_count, m.value AS capability, m.low AS capability_low,
        m.high AS capability_high, m.n AS capability_n,
        CASE WHEN b.value > coalesce(b.chance, 0) THEN
            (m.value - coalesce(b.chance, 0)) / (b.value - coalesce(b.chance, 0))
        END AS capability_share
    FROM means AS m LEFT JOIN (FROM means WHERE edit_count = 0) AS b USING (run, trajectory, order_seed)
),
texts AS (
    SELECT run, trajectory, order_seed, edit_count, max(ratio) AS perplexity_ratio
    FROM perplexity_by_edit_count
    GROUP BY run, trajectory, order_seed, edit_count
)
SELECT
    run, trajectory, label, method, model, dataset, order_seed, edit_count, protocol,
    reliability, reliability_n, reliability_low, reliability_high, generalization, locality, portability,
    capability, capability_n, capability_low, capability_high, capability_share, perplexity_ratio
FROM learned
LEFT JOIN kept USING (run, trajectory, order_seed, edit_count)
LEFT JOIN texts USING (run, trajectory, order_seed, edit_count)
ORDER BY run, trajectory, order_seed, protocol, edit_count
