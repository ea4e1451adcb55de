-- Perplexity of fixed texts at every edit count: the cheapest early sign of a collapse.
--
-- corpus     the texts' name
-- value      exp(summed NLL / summed tokens) over the corpus; inf or NaN if the model no longer gives probabilities
-- low, high  95 % interval from the spread between texts (ratio estimator); null for one text
-- n          texts; num_tokens: their tokens
-- ratio      value over the pristine model's value on the same texts; null without a baseline
--
-- Edit count 0 is the pristine model; the same row starts each trajectory of its run and ordering.
WITH sums AS (
    SELECT
        run, trajectory, order_seed, model, any_value(method) AS method, dataset, edit_count, corpus,
        count(*) AS n, sum(num_tokens)::BIGINT AS num_tokens,
        sum(nll) / sum(num_tokens) AS mean_nll,
        sum(nll * nll) AS nll_nll, sum(nll * num_tokens) AS nll_tokens,
        sum(num_tokens::DOUBLE * num_tokens) AS tokens_tokens
    FROM perplexity
    WHERE nll IS NOT NULL AND num_tokens > 0
    GROUP BY run, trajectory, order_seed, model, dataset, edit_count, corpus
),
measured AS (
    SELECT
        *,
        CASE WHEN n > 1 AND isfinite(mean_nll) THEN
            sqrt(greatest(0, nll_nll - 2 * mean_nll * nll_tokens + mean_nll ** 2 * tokens_tokens) * n / (n - 1)) / num_tokens
        END AS stderr
    FROM sums
),
points AS (
    FROM with_pristine('measured')
),
baseline AS (
    SELECT run, order_seed, model, dataset, corpus, mean_nll AS base_nll FROM measured WHERE method = 'none'
)
SELECT
    run, trajectory, coalesce(t.label, p.method) AS label, p.method, model, dataset, order_seed, edit_count, corpus,
    exp(mean_nll) AS value, n, exp(mean_nll - z95() * stderr) AS low, exp(mean_nll + z95() * stderr) AS high, num_tokens,
    exp(mean_nll - base_nll) AS ratio
FROM points AS p
LEFT JOIN baseline USING (run, order_seed, model, dataset, corpus)
LEFT JOIN trajectories AS t USING (run, trajectory, order_seed, model, dataset)
ORDER BY run, trajectory, order_seed, corpus, edit_count
