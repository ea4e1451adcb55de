-- The change of general ability by editing: each checkpoint against the pristine model, on the same items.
--
-- task        an lm-eval task by its headline metric; 'all': the items of all tasks pooled, each item with equal weight
-- n           items with a finite value from both
-- base_value, value, difference  means over these items, before and after; difference = value - base_value
-- low, high   95 % interval of the difference: Agresti and Min's for pairs (see macros/statistics.sql), also for scores that are
--             fractions, for which it is slightly too wide
-- num_lost, num_gained  items with a lower and a higher value than before
-- p_value     exact two-sided sign test of num_lost against num_gained; for right and wrong that is McNemar's exact test.
--             For fractions it asks whether as many items fell as rose, not whether the mean did
-- p_adjusted  Holm's (1979); the family: all trajectories of the run (every method and ordering) at this edit count, one
--             task at a time. It guards against the many methods, not against the many edit counts and tasks
--
-- Edit count 0 has no rows: the pristine model does not differ from itself.
WITH headlines AS (
    SELECT DISTINCT run, model, dataset, task, metric FROM capability WHERE main
),
items AS (
    SELECT s.* FROM capability_samples AS s SEMI JOIN headlines USING (run, model, dataset, task, metric) WHERE isfinite(value)
),
pairs AS (
    SELECT
        run, a.trajectory, order_seed, model, a.method, dataset, a.edit_count, task,
        b.value AS before, a.value AS after, a.value - b.value AS change
    FROM items AS a JOIN (FROM items WHERE method = 'none') AS b
        USING (run, order_seed, model, dataset, task, doc_id, metric)
    WHERE a.method <> 'none'
),
sums AS (
    SELECT
        run, trajectory, order_seed, model, method, dataset, edit_count, coalesce(task, 'all') AS task,
        count(*) AS n, avg(before) AS base_value, avg(after) AS value,
        sum(change) AS changes, sum(change ** 2) AS squares,
        count(*) FILTER (change < 0) AS num_lost, count(*) FILTER (change > 0) AS num_gained
    FROM pairs
    GROUP BY GROUPING SETS (
        (run, trajectory, order_seed, model, method, dataset, edit_count, task),
        (run, trajectory, order_seed, model, method, dataset, edit_count)
    )
),
tested AS (
    SELECT
        *, sign_test(num_lost, num_gained) AS p_value,
        row_number() OVER (PARTITION BY run, edit_count, task ORDER BY p_value, trajectory, order_seed) AS rank,
        count(*) OVER (PARTITION BY run, edit_count, task) AS family
    FROM sums
)
SELECT
    run, trajectory, coalesce(t.label, c.method) AS label, c.method, model, dataset, order_seed, edit_count, task,
    n, base_value, value, changes / n AS difference, paired_low(changes, squares, n) AS low,
    paired_high(changes, squares, n) AS high, num_lost, num_gained, p_value,
    least(1.0, max((family - rank + 1) * p_value) OVER (PARTITION BY run, edit_count, task ORDER BY rank)) AS p_adjusted
FROM tested AS c LEFT JOIN trajectories AS t USING (run, trajectory, order_seed, model, dataset)
ORDER BY run, trajectory, order_seed, edit_count, task = 'all', task
