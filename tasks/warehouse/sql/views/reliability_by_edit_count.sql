-- Reliability, generalization, locality and portability at every edit count of every trajectory.
--
-- measure   reliability   score of the edit prompts
--           generalization  score of the rephrased prompts
--           persona       score of the prompts in the words of other people (only in WikiBigEdit)
--           locality      agreement of the locality prompts with the output before editing
--           locality_gold  score of the locality prompts against the dataset's gold answers
--           portability   score of the portability prompts
-- protocol  generated | teacher_forced | probability; a measure means nothing without it
-- value     mean over the n prompts that can be scored; null if n is 0; n: their number
-- low, high  Wilson's 95 % interval, prompts taken as independent (see macros/common.sql on fractional scores)
-- unscored, reason  the number of prompts without a score, and the most frequent reason (of equals the last by name)
--
-- Edit count 0 is the pristine model on all planned cases: the same row starts each trajectory of its run and ordering.
-- Its locality is 1 by definition, not by measurement: the pristine model agrees with itself.
WITH weighed AS (
    SELECT
        *,
        sum(num_rows) OVER (PARTITION BY run, trajectory, order_seed, edit_count, probe, protocol, score_reason) AS num_score_reason,
        sum(num_rows) OVER (PARTITION BY run, trajectory, order_seed, edit_count, probe, protocol, agreement_reason) AS num_agreement_reason
    FROM outcome_sums
),
measured AS (
    SELECT
        run, trajectory, order_seed, edit_count, probe, protocol,
        any_value(model) AS model, any_value(method) AS method, any_value(dataset) AS dataset,
        sum(sum_scores) / sum(num_scores) AS mean_score, sum(num_scores)::BIGINT AS num_scores,
        sum(sum_agreements) / sum(num_agreements) AS mean_agreement, sum(num_agreements)::BIGINT AS num_agreements,
        sum(num_rows)::BIGINT AS num_rows,
        max_by(score_reason, (num_score_reason, score_reason)) FILTER (WHERE score_reason IS NOT NULL) AS score_reason,
        max_by(agreement_reason, (num_agreement_reason, agreement_reason)) FILTER (WHERE agreement_reason IS NOT NULL) AS agreement_reason
    FROM weighed
    GROUP BY run, trajectory, order_seed, edit_count, probe, protocol
),
points AS (
    FROM with_pristine('measured')
),
measures(measure, probe, by_agreement) AS (
    VALUES
        ('reliability', 'edit', false),
        ('generalization', 'rephrase', false),
        ('persona', 'persona', false),
        ('locality', 'locality', true),
        ('locality_gold', 'locality', false),
        ('portability', 'portability', false)
),
means AS (
    SELECT
        p.*, measure,
        by_agreement AND edit_count = 0 AS is_given,
        CASE WHEN is_given THEN 1.0 WHEN by_agreement THEN mean_agreement ELSE mean_score END AS value,
        CASE WHEN is_given THEN num_rows WHEN by_agreement THEN num_agreements ELSE num_scores END AS n,
        CASE WHEN is_given THEN 'by definition' WHEN by_agreement THEN agreement_reason ELSE score_reason END AS reason
    FROM points AS p JOIN measures USING (probe)
)
SELECT
    run, trajectory, coalesce(t.label, m.method) AS label, m.method, model, dataset, order_seed,
    measure, protocol, edit_count,
    value, n, CASE WHEN is_given THEN 1.0 ELSE wilson_low(value, n) END AS low, wilson_high(value, n) AS high, num_rows - n AS unscored, reason
FROM means AS m LEFT JOIN trajectories AS t USING (run, trajectory, order_seed, model, dataset)
ORDER BY run, trajectory, order_seed, measure, protocol, edit_count
