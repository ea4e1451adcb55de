-- Retention by age: the score of edit prompts at an edit count, by the number of edits that came after them.
--
-- age       edit_count - position, in decades: '0' (the last edit), '1-9', '10-99', '100-999', ...
-- age_low, age_high  the bounds of the decade, for sorting and joining
-- protocol  generated | teacher_forced | probability
-- value, n, low, high, unscored, reason  as in reliability_by_edit_count
--
-- The pristine model has no rows: without edits there are no ages.
WITH aged AS (
    SELECT
        *,
        sum(num_rows) OVER (PARTITION BY run, trajectory, order_seed, edit_count, protocol, decade, score_reason) AS num_score_reason
    FROM outcome_sums
    WHERE decade IS NOT NULL
),
means AS (
    SELECT
        run, trajectory, order_seed, edit_count, protocol, decade,
        any_value(model) AS model, any_value(method) AS method, any_value(dataset) AS dataset,
        sum(sum_scores) / sum(num_scores) AS value, sum(num_scores)::BIGINT AS n, sum(num_rows)::BIGINT AS num_rows,
        max_by(score_reason, (num_score_reason, score_reason)) FILTER (WHERE score_reason IS NOT NULL) AS reason
    FROM aged
    GROUP BY run, trajectory, order_seed, edit_count, protocol, decade
),
bounded AS (
    SELECT
        *,
        CASE WHEN decade = 0 THEN 0 ELSE (10 ** (decade - 1))::BIGINT END AS age_low,
        CASE WHEN decade = 0 THEN 0 ELSE (10 ** decade)::BIGINT - 1 END AS age_high
    FROM means
)
SELECT
    run, trajectory, coalesce(t.label, b.method) AS label, b.method, model, dataset, order_seed, protocol, edit_count,
    CASE WHEN age_low = age_high THEN age_low::VARCHAR ELSE age_low || '-' || age_high END AS age, age_low, age_high,
    value, n, wilson_low(value, n) AS low, wilson_high(value, n) AS high, num_rows - n AS unscored, reason
FROM bounded AS b LEFT JOIN trajectories AS t USING (run, trajectory, order_seed, model, dataset)
ORDER BY run, trajectory, order_seed, protocol, edit_count, age_low
