-- General ability at every edit count with a measurement: the headline metric of each task, and their mean as task 'mean'.
--
-- task       an lm-eval task or group; 'mean': the mean over them
-- metric     its headline metric; null for the mean
-- value      in [0, 1], higher is better; null if the harness gave no finite number
-- low, high  95 % interval: value +- 1.96 stderr; Wilson's if stderr is unknown or 0 (all right, all wrong).
--            For the mean: the root of the tasks' summed squared half-widths over their number (tasks are independent)
-- n          samples; for the mean those of all tasks together
-- chance     the score of guessing; for the mean the mean over tasks, null if one is unknown
-- num_tasks  for the mean: the number of tasks
-- reason     why value is null. The mean is null unless it covers every task of the run: means over different tasks
--            could not be compared
-- part_of    the group (mmlu) whose score includes the task (mmlu_anatomy); null for a group and for a task without one.
--            The mean is over rows without part_of, so a group counts once, and its tasks do not count again
--
-- Edit count 0 is the pristine model; the same row starts each trajectory of its run and ordering.
WITH finite AS (
    SELECT * REPLACE (
        CASE WHEN isfinite(value) THEN value END AS value,
        CASE WHEN isfinite(stderr) AND stderr > 0 THEN stderr END AS stderr
    )
    FROM capability WHERE main
),
scored AS (
    SELECT
        run, trajectory, order_seed, model, method, dataset, edit_count, task, part_of, metric, value, num_samples AS n, chance,
        CASE WHEN value + stderr IS NOT NULL THEN greatest(0, value - z95() * stderr) ELSE wilson_low(value, num_samples) END AS low,
        CASE WHEN value + stderr IS NOT NULL THEN least(1, value + z95() * stderr) ELSE wilson_high(value, num_samples) END AS high
    FROM finite
),
planned AS (
    SELECT run, model, dataset, count(DISTINCT task) AS planned_tasks FROM scored WHERE part_of IS NULL GROUP BY run, model, dataset
),
means AS (
    SELECT
        run, trajectory, order_seed, model, any_value(method) AS method, dataset, edit_count,
        'mean' AS task, 'mean of the headline metrics' AS metric,
        count(value) = any_value(planned_tasks) AS is_whole,
        avg(value) AS mean, sqrt(sum(((high - low) / 2) ** 2)) / count(value) AS half_width,
        sum(n)::BIGINT AS n, CASE WHEN count(chance) = count(*) THEN avg(chance) END AS chance,
        count(value) AS num_tasks, any_value(planned_tasks) AS planned_tasks
    FROM scored JOIN planned USING (run, model, dataset)
    WHERE part_of IS NULL
    GROUP BY run, trajectory, order_seed, model, dataset, edit_count
),
measured AS (
    SELECT *, CASE WHEN value IS NULL THEN 'no finite value' END AS reason FROM scored
    UNION ALL BY NAME
    SELECT
        * EXCLUDE (is_whole, mean, half_width, planned_tasks),
        CASE WHEN is_whole THEN mean END AS value,
        CASE WHEN is_whole THEN greatest(0, mean - half_width) END AS low,
        CASE WHEN is_whole THEN least(1, mean + half_width) END AS high,
        CASE WHEN NOT is_whole THEN num_tasks || ' of ' || planned_tasks || ' tasks measured' END AS reason
    FROM means
),
points AS (
    FROM with_pristine('measured')
)
SELECT
    run, trajectory, coalesce(t.label, p.method) AS label, p.method, model, dataset, order_seed, edit_count,
    task, part_of, metric, value, n, low, high, chance, num_tasks, reason
FROM points AS p LEFT JOIN trajectories AS t USING (run, trajectory, order_seed, model, dataset)
ORDER BY run, trajectory, order_seed, edit_count, task = 'mean', task
