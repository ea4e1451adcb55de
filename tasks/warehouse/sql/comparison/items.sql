-- Paired differences of general benchmarks: items that both runs answered, by each task's headline metric. The items of
-- all tasks together are the measure `mean`, of which only n and p_value are meaningful.
-- The table `compared` gives trajectories of the two runs (side 1 and 2) their common name.
WITH headlines AS (
    SELECT DISTINCT run, task, metric FROM capability WHERE main
),
answered AS (
    -- of several orders with one name: the mean, so that an item counts once
    SELECT side, name, edit_count, task, doc_id, metric, target, avg(value) AS value
    FROM capability_samples
    JOIN headlines USING (run, task, metric)
    JOIN compared USING (run, trajectory, order_seed)
    WHERE isfinite(value)
    GROUP BY ALL
)
SELECT
    name, edit_count, coalesce(task, 'mean') AS measure, count(*) AS n, avg(a.value) AS first, avg(b.value) AS second,
    sum(b.value - a.value) AS changes, sum((b.value - a.value) ** 2) AS squares, changes / n AS difference,
    paired_low(changes, squares, n) AS low, paired_high(changes, squares, n) AS high,
    sign_test(count(*) FILTER (b.value < a.value), count(*) FILTER (b.value > a.value)) AS p_value
FROM (FROM answered WHERE side = 1) AS a JOIN (FROM answered WHERE side = 2) AS b
    USING (name, edit_count, task, doc_id, metric)
WHERE a.target IS NOT DISTINCT FROM b.target
GROUP BY GROUPING SETS ((name, edit_count, task), (name, edit_count))
