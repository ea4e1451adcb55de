-- Paired differences of the scores of two runs: answers to the same prompt of the same case with the same target.
-- The table `compared` gives trajectories of the two runs (side 1 and 2) their common name.
WITH asked AS (
    -- of several orders with one name: the mean, so that a question counts once
    SELECT
        side, name, edit_count, probe, probe_index, case_id, prompt, target,
        avg(CASE WHEN probe = 'locality' THEN agreement ELSE score END) AS value
    FROM outcomes JOIN compared USING (run, trajectory, order_seed)
    WHERE protocol = $protocol
    GROUP BY ALL
    HAVING avg(CASE WHEN probe = 'locality' THEN agreement ELSE score END) IS NOT NULL
)
SELECT
    name, edit_count, probe AS measure, count(*) AS n, avg(a.value) AS first, avg(b.value) AS second,
    sum(b.value - a.value) AS changes, sum((b.value - a.value) ** 2) AS squares, changes / n AS difference,
    paired_low(changes, squares, n) AS low, paired_high(changes, squares, n) AS high,
    sign_test(count(*) FILTER (b.value < a.value), count(*) FILTER (b.value > a.value)) AS p_value
FROM (FROM asked WHERE side = 1) AS a JOIN (FROM asked WHERE side = 2) AS b
    USING (name, edit_count, probe, probe_index, case_id, prompt)
WHERE a.target IS NOT DISTINCT FROM b.target
GROUP BY name, edit_count, probe
