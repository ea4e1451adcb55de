-- Paired differences of perplexity: texts that both runs measured. Perplexities are compared by their ratio, which is
-- given as `difference`, with the interval of a ratio estimator as in perplexity_by_edit_count.
-- The table `compared` gives trajectories of the two runs (side 1 and 2) their common name.
WITH measured AS (
    -- of several orders with one name: the mean, so that a text counts once
    SELECT side, name, edit_count, corpus, text_id, num_tokens, avg(nll) AS nll
    FROM perplexity JOIN compared USING (run, trajectory, order_seed)
    WHERE isfinite(nll)
    GROUP BY ALL
),
pairs AS (
    SELECT name, edit_count, corpus, num_tokens, a.nll AS first, b.nll AS second, b.nll - a.nll AS change
    FROM (FROM measured WHERE side = 1) AS a JOIN (FROM measured WHERE side = 2) AS b
        USING (name, edit_count, corpus, text_id, num_tokens)
)
SELECT
    name, edit_count, corpus AS measure, count(*) AS n, exp(sum(first) / sum(num_tokens)) AS first,
    exp(sum(second) / sum(num_tokens)) AS second, sum(change) / sum(num_tokens) AS mean_change,
    sum(change ** 2) - 2 * mean_change * sum(change * num_tokens) + mean_change ** 2 * sum(num_tokens ** 2) AS squares,
    CASE WHEN n > 1 THEN sqrt(greatest(0, squares) * n / (n - 1)) / sum(num_tokens) END AS stderr,
    exp(mean_change) AS difference, exp(mean_change - z95() * stderr) AS low, exp(mean_change + z95() * stderr) AS high,
    sign_test(count(*) FILTER (change < 0), count(*) FILTER (change > 0)) AS p_value
FROM pairs
GROUP BY name, edit_count, corpus
