-- Empty and repetitive text at every edit count, over all generated answers (except the probe `text`, whose texts are
-- longer).
--
-- empty       share of outputs that contain only whitespace
-- repetitive  share of outputs of at least 8 words in which one word makes up more than half (case is ignored;
--             words are separated by whitespace); shorter outputs count as not repetitive
-- n           generated outputs; *_low, *_high: Wilson's 95 % intervals
-- mean_tokens, length_share  mean number of tokens, and the share of outputs cut off at the token limit
--
-- Edit count 0 is the pristine model; the same row starts each trajectory of its run and ordering.
WITH measured AS (
    SELECT
        run, trajectory, order_seed, any_value(model) AS model, any_value(method) AS method,
        any_value(dataset) AS dataset, edit_count, sum(num_texts)::BIGINT AS n,
        sum(num_empty) / sum(num_texts) AS empty, sum(num_repetitive) / sum(num_texts) AS repetitive,
        sum(sum_lengths) / nullif(sum(num_lengths), 0) AS mean_tokens,
        sum(num_cut) / nullif(sum(num_endings), 0) AS length_share
    FROM outcome_sums
    WHERE num_texts > 0 AND probe <> 'text'
    GROUP BY run, trajectory, order_seed, edit_count
),
points AS (
    FROM with_pristine('measured')
)
SELECT
    run, trajectory, coalesce(t.label, p.method) AS label, p.method, model, dataset, order_seed, edit_count, n,
    empty, wilson_low(empty, n) AS empty_low, wilson_high(empty, n) AS empty_high,
    repetitive, wilson_low(repetitive, n) AS repetitive_low, wilson_high(repetitive, n) AS repetitive_high,
    mean_tokens, length_share
FROM points AS p LEFT JOIN trajectories AS t USING (run, trajectory, order_seed, model, dataset)
ORDER BY run, trajectory, order_seed, edit_count
