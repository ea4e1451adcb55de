-- The correlation of each cheap probe with the loss of general ability, over the points of a run that have both.
--
-- method         one method, or 'all': the points of every method together
-- probe          those of probes_by_edit_count; log_perplexity_ratio is the logarithm of perplexity_ratio
-- against        capability_share: capability over the pristine model's, both less chance
-- num_points     trajectory x edit count > 0; num_trajectories: the number of trajectories that they come from
-- spearman       rank correlation, ties with average ranks; -1: the higher the probe, the lower the ability. A perplexity
--                that is not a number ranks highest
-- low, high      95 % interval of spearman by Fisher's z with Bonett and Wright's (2000) variance. It assumes that
--                points are independent, which those of one trajectory are NOT: each edit count includes the edits of the
--                one before. It is a lower bound of the uncertainty; see num_trajectories. Null if the order is perfect
-- pearson        linear correlation, over the points with a finite probe
-- reason         why there is no correlation
WITH shares AS (
    SELECT run, trajectory, order_seed, edit_count, any_value(capability_share) AS share
    FROM reliability_vs_capability
    WHERE edit_count > 0
    GROUP BY run, trajectory, order_seed, edit_count
    HAVING share IS NOT NULL
),
points AS (
    SELECT
        run, trajectory, order_seed, model, dataset, method, share,
        CASE WHEN probe = 'perplexity_ratio' THEN 'log_perplexity_ratio' ELSE probe END AS probe,
        CASE WHEN probe <> 'perplexity_ratio' THEN value WHEN value > 0 THEN ln(value) END AS value
    FROM probes_by_edit_count JOIN shares USING (run, trajectory, order_seed, edit_count)
),
grouped AS (
    FROM points WHERE value IS NOT NULL
    UNION ALL
    SELECT * REPLACE ('all' AS method) FROM points WHERE value IS NOT NULL
),
ranked AS (
    SELECT
        *,
        rank() OVER (PARTITION BY run, method, model, dataset, probe ORDER BY value)
            + (count(*) OVER (PARTITION BY run, method, model, dataset, probe, value) - 1) / 2 AS value_rank,
        rank() OVER (PARTITION BY run, method, model, dataset, probe ORDER BY share)
            + (count(*) OVER (PARTITION BY run, method, model, dataset, probe, share) - 1) / 2 AS share_rank
    FROM grouped
),
correlated AS (
    SELECT
        run, method, model, dataset, probe, count(*) AS num_points, count(DISTINCT (trajectory, order_seed)) AS num_trajectories,
        CASE
            WHEN count(*) < 4 THEN 'fewer than 4 points'
            WHEN count(DISTINCT value) = 1 THEN 'the probe has one value'
            WHEN count(DISTINCT share) = 1 THEN 'capability has one value'
        END AS reason,
        corr(value_rank, share_rank) AS rho,
        z95() * sqrt((1 + rho ** 2 / 2) / greatest(1, num_points - 3)) AS margin,
        corr(value, share) FILTER (isfinite(value)) AS r
    FROM ranked
    GROUP BY run, method, model, dataset, probe
)
SELECT
    run, method, model, dataset, probe, 'capability_share' AS against, num_points, num_trajectories,
    CASE WHEN reason IS NULL THEN rho END AS spearman,
    CASE WHEN reason IS NULL AND abs(rho) < 1 - 1e-9 THEN tanh(atanh(rho) - margin) END AS low,
    CASE WHEN reason IS NULL AND abs(rho) < 1 - 1e-9 THEN tanh(atanh(rho) + margin) END AS high,
    CASE WHEN reason IS NULL AND isfinite(r) THEN r END AS pearson, reason
FROM correlated
ORDER BY run, method <> 'all', method, abs(spearman) DESC NULLS LAST, probe
