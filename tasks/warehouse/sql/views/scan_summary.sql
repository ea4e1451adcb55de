-- The share of single edits that break a model, by the position of the subject in the prompt: three rows per scan.
--
-- subject         all | first (the prompt begins with it) | later (it does not, or the case has none)
-- n               cases that were edited and measured; num_failed: those that failed
-- num_hard        number of them in hard_cases; hard_share: their share of n
-- low, high       Wilson's 95 % interval of hard_share
-- base_perplexity  of the pristine model
-- median_ratio, largest_ratio  perplexity after the edit over that of the pristine model
-- learned_share   share of cases whose new answer the edited model gives (teacher forced, every token)
-- median_norm     of the update, Frobenius
-- seconds_per_edit  editing and measuring; the mean over n
WITH cases AS (
    SELECT
        s.*, h.reason IS NOT NULL AS hard,
        CASE WHEN coalesce(starts_with(s.prompt, s.subject), FALSE) THEN 'first' ELSE 'later' END AS subject_position
    FROM scans AS s
    LEFT JOIN hard_cases AS h USING (run, trajectory, model, method, dataset, order_seed, position)
),
grouped AS (
    SELECT *, subject_position AS group_name FROM cases
    UNION ALL
    SELECT *, 'all' AS group_name FROM cases
),
counted AS (
    SELECT
        run, trajectory, any_value(label) AS label, method, model, dataset, order_seed, group_name AS subject,
        count(*) FILTER (WHERE error IS NULL) AS n,
        count(*) FILTER (WHERE error IS NOT NULL) AS num_failed,
        count(*) FILTER (WHERE hard) AS num_hard,
        any_value(base_perplexity) AS base_perplexity,
        median(ratio) AS median_ratio, max(ratio) AS largest_ratio, median(update_norm) AS median_norm,
        avg(learned::INTEGER) AS learned_share, avg(seconds) FILTER (WHERE error IS NULL) AS seconds_per_edit
    FROM grouped
    GROUP BY run, trajectory, method, model, dataset, order_seed, group_name
)
SELECT
    run, trajectory, label, method, model, dataset, order_seed, subject, n, num_failed, num_hard,
    num_hard / nullif(n, 0) AS hard_share, wilson_low(num_hard / nullif(n, 0), n) AS low,
    wilson_high(num_hard / nullif(n, 0), n) AS high,
    base_perplexity, median_ratio, largest_ratio, median_norm, learned_share, seconds_per_edit
FROM counted
ORDER BY run, trajectory, order_seed, subject
