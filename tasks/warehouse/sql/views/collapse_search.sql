-- The answers of searches for the collapse (edit_counts: {search: collapse}): one row per trajectory and definition.
--
-- definition   the definition of collapse, as in collapse_definitions; rank: its place among the search's, from 1
-- takes        the edits that the model takes: the last measured edit count before it has likely collapsed; 0 is the
--              pristine model
-- last_good, collapse_at  the bracket: the last edit count at which the model is surely good, and the first at which it
--              has surely collapsed (null if it has not up to measured_up_to). A verdict is sure where the interval of the
--              number, widened for all decisions of the search together, does not hold the limit (table verdicts)
-- confidence   the least probability that the bracket holds the true collapse point, if ability only falls with edits; it
--              takes the pristine model's score on the same items as given
-- undecided    measured edit counts inside the bracket
-- num_measured, measured_up_to  the edit counts that were measured, and the last of them
WITH firsts AS (
    SELECT
        *, min(edit_count) FILTER (verdict = 'bad') OVER trajectories AS bad
    FROM verdicts
    WINDOW trajectories AS (PARTITION BY run, trajectory, order_seed, definition)
),
bounds AS (
    SELECT
        *, coalesce(max(edit_count) FILTER (verdict = 'good' AND (bad IS NULL OR edit_count < bad)) OVER trajectories, 0) AS good
    FROM firsts
    WINDOW trajectories AS (PARTITION BY run, trajectory, order_seed, definition)
),
doubtful AS (
    SELECT
        *, edit_count > good AND (bad IS NULL OR edit_count < bad) AS is_inside,
        min(edit_count) FILTER (likely = 'bad' AND edit_count > good) OVER trajectories AS likely_bad
    FROM bounds
    WINDOW trajectories AS (PARTITION BY run, trajectory, order_seed, definition)
)
SELECT
    run, trajectory, coalesce(any_value(t.label), any_value(v.method)) AS label, any_value(v.method) AS method,
    model, dataset, order_seed, definition, any_value(rank) AS rank,
    coalesce(max(edit_count) FILTER (is_inside AND edit_count < coalesce(likely_bad, bad, edit_count + 1)), any_value(good)) AS takes,
    any_value(good) AS last_good, any_value(bad) AS collapse_at, any_value(confidence) AS confidence,
    count(*) FILTER (is_inside) AS undecided, count(*) AS num_measured, max(edit_count) AS measured_up_to
FROM doubtful AS v LEFT JOIN trajectories AS t USING (run, trajectory, order_seed, model, dataset)
GROUP BY run, trajectory, model, dataset, order_seed, definition
ORDER BY run, trajectory, order_seed, rank
