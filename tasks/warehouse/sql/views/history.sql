-- Each headline number of every instance of a run: how the same measurement came out over time.
--
-- instance     an execution of the run; ids sort by time
-- started_at   when it started
-- commit       git commit of its code
-- measure      reliability, generalization, locality, portability, capability (the mean over the benchmarks' headline
--              metrics) or perplexity
-- protocol     of an outcome: generated | teacher_forced | probability; null for capability and perplexity
-- value        the number
-- n            the prompts, benchmarks or texts that it is a mean over
-- low, high    95 % interval: Wilson's for outcomes, from the benchmarks' standard errors for capability; null for
--              perplexity
-- verdict      of the comparison with the baseline: moved | within noise | not comparable; null if it was not compared
-- is_baseline  whether the instance is the accepted one
WITH sums AS (
    SELECT
        instance, run, trajectory, order_seed, edit_count, probe, protocol,
        sum(sum_scores) / sum(num_scores) AS mean_score, sum(num_scores)::BIGINT AS num_scores,
        sum(sum_agreements) / sum(num_agreements) AS mean_agreement, sum(num_agreements)::BIGINT AS num_agreements
    FROM outcome_sums_by_instance
    WHERE method <> 'none'
    GROUP BY ALL
),
measures(measure, probe, by_agreement) AS (
    VALUES
        ('reliability', 'edit', false),
        ('generalization', 'rephrase', false),
        ('locality', 'locality', true),
        ('portability', 'portability', false)
),
scored AS (
    SELECT
        instance, run, trajectory, order_seed, edit_count, measure, protocol,
        CASE WHEN by_agreement THEN mean_agreement ELSE mean_score END AS value,
        CASE WHEN by_agreement THEN num_agreements ELSE num_scores END AS n,
        wilson_low(value, n) AS low, wilson_high(value, n) AS high
    FROM sums JOIN measures USING (probe)
),
means AS (
    SELECT
        instance, run, trajectory, order_seed, edit_count,
        avg(value) AS mean, count(*) AS n, z95() * sqrt(sum(stderr ** 2)) / count(*) AS half_width
    FROM capability_by_instance
    WHERE main AND part_of IS NULL AND method <> 'none'
    GROUP BY ALL
),
benchmarks AS (
    SELECT
        instance, run, trajectory, order_seed, edit_count, 'capability' AS measure, NULL AS protocol,
        mean AS value, n, mean - half_width AS low, mean + half_width AS high
    FROM means
),
texts AS (
    SELECT
        instance, run, trajectory, order_seed, edit_count, 'perplexity' AS measure, NULL AS protocol,
        exp(sum(nll) / sum(num_tokens)) AS value, count(*) AS n, NULL::DOUBLE AS low, NULL::DOUBLE AS high
    FROM perplexity_by_instance
    WHERE nll IS NOT NULL AND num_tokens > 0 AND method <> 'none'
    GROUP BY instance, run, trajectory, order_seed, edit_count
),
numbers AS (
    SELECT *, coalesce(protocol, '') AS under
    FROM (SELECT * FROM scored UNION ALL BY NAME SELECT * FROM benchmarks UNION ALL BY NAME SELECT * FROM texts)
),
labels AS (
    SELECT instance, run, trajectory, order_seed, any_value(label) AS label FROM runs_by_instance GROUP BY ALL
),
-- a verdict on all orders of a trajectory together has no order_seed
verdicts AS (
    SELECT
        g.run, g.instance, g.trajectory, o.order_seed, edit_count,
        CASE kind WHEN 'capability' THEN 'capability' WHEN 'perplexity' THEN 'perplexity' ELSE measure END AS measure,
        coalesce(protocol, '') AS under, verdict
    FROM gates AS g
    JOIN (SELECT DISTINCT run, instance, trajectory, order_seed FROM numbers) AS o ON
        o.run = g.run AND o.instance = g.instance AND o.trajectory = g.trajectory
        AND (g.order_seed IS NULL OR g.order_seed = o.order_seed)
    WHERE kind <> 'capability' OR measure = 'mean'
),
baselines AS (
    SELECT run, max_by(instance, accepted_at) AS instance, true AS is_baseline FROM accepted GROUP BY run
)
SELECT
    run, instance, started_at, commit, trajectory, coalesce(label, trajectory) AS label, order_seed, edit_count,
    measure, protocol, value, low, high, n, verdict, is_baseline IS NOT NULL AS is_baseline
FROM numbers
LEFT JOIN (SELECT run, instance, started_at, commit FROM instances) USING (run, instance)
LEFT JOIN labels USING (run, instance, trajectory, order_seed)
LEFT JOIN baselines USING (run, instance)
LEFT JOIN verdicts USING (run, instance, trajectory, order_seed, edit_count, measure, under)
ORDER BY run, trajectory, order_seed, measure, protocol, edit_count, instance
