-- The measures of every preset, i.e. of the protocol of a paper, at every edit count of every trajectory.
--
-- preset, measure  as in preset_measures
-- value      mean of the questions' scores (preset_outcomes); for the preset butterfly the mean over texts of each text's
--            perplexity, and that mean over the pristine model's on the same texts; for should-we-edit the tasks' scores
-- n          number of questions, texts or samples; for a mean of measures those of all of them together
-- low, high  95 % interval. Shares: Wilson's, questions taken as independent; magnitudes, bits, similarity and
--            perplexity: mean +- 1.96 standard errors within what is possible, null for one question; the ratio: of
--            paired texts. For the mean of measures: the root of their summed squared half-widths over their number;
--            for the harmonic mean: the harmonic means of the lower and of the upper bounds, which is wider than needed
-- unit       share | bits | perplexity
-- reason     why value is null; with a value, the most frequent reason why questions have no score (the last by name of
--            equally frequent ones). A mean of exact matches is null unless every question has a score
--
-- Edit count 0 is the pristine model; the same row starts each trajectory of its run and ordering.
WITH by_reason AS (
    SELECT
        run, trajectory, order_seed, edit_count, preset, measure, reason,
        sum(score) AS total, sum(score * score) AS squares, count(score) AS num_scores, count(*) AS num_rows
    FROM preset_outcomes
    GROUP BY run, trajectory, order_seed, edit_count, preset, measure, reason
),
questions AS (
    SELECT
        run, trajectory, order_seed, edit_count, preset, measure,
        sum(total) / sum(num_scores) AS mean, sum(num_scores)::BIGINT AS n, sum(num_rows)::BIGINT AS num_rows,
        CASE WHEN n > 1 THEN sqrt(greatest(0, sum(squares) / n - mean ** 2) / (n - 1)) END AS stderr,
        max_by(reason, (num_rows, reason)) FILTER (WHERE reason IS NOT NULL) AS reason
    FROM by_reason
    GROUP BY run, trajectory, order_seed, edit_count, preset, measure
),
texts AS (
    SELECT run, trajectory, order_seed, method, model, dataset, edit_count, corpus, text_id, exp(nll / num_tokens) AS own
    FROM perplexity WHERE nll IS NOT NULL AND num_tokens > 0
),
base_texts AS (
    SELECT run, order_seed, model, dataset, corpus, text_id, own AS base_own FROM texts WHERE method = 'none'
),
perplexities AS (
    SELECT
        run, trajectory, order_seed, edit_count, count(*) AS n,
        avg(own) AS mean, CASE WHEN isfinite(mean) AND n > 1 THEN sqrt(greatest(0, avg(own * own) - mean ** 2) / (n - 1)) END AS stderr,
        CASE WHEN count(base_own) = n THEN mean / avg(base_own) END AS ratio,
        CASE WHEN isfinite(ratio) AND n > 1 THEN
            sqrt(greatest(0, avg(own * own) - 2 * ratio * avg(own * base_own) + ratio ** 2 * avg(base_own * base_own)) / (n - 1))
            / avg(base_own)
        END AS ratio_stderr
    FROM texts LEFT JOIN base_texts USING (run, order_seed, model, dataset, corpus, text_id)
    GROUP BY run, trajectory, order_seed, edit_count
),
measured_points AS (
    SELECT run, trajectory, order_seed, model, method, dataset, edit_count FROM outcome_sums
    UNION
    SELECT run, trajectory, order_seed, model, method, dataset, edit_count FROM perplexity
    UNION
    SELECT run, trajectory, order_seed, model, method, dataset, edit_count FROM capability
),
found AS (
    SELECT
        p.*, m.*, x.mean AS perplexity,
        CASE kind
            WHEN 'perplexity' THEN x.mean
            WHEN 'perplexity ratio' THEN x.ratio
            WHEN 'exact match' THEN CASE WHEN q.n = q.num_rows THEN q.mean END
            ELSE q.mean
        END AS raw,
        CASE kind WHEN 'perplexity' THEN x.stderr WHEN 'perplexity ratio' THEN x.ratio_stderr ELSE q.stderr END AS error,
        coalesce(CASE WHEN probe IS NULL THEN x.n ELSE q.n END, 0) AS n, q.num_rows, q.reason
    FROM measured_points AS p
    CROSS JOIN preset_measures AS m
    LEFT JOIN questions AS q USING (run, trajectory, order_seed, edit_count, preset, measure)
    LEFT JOIN perplexities AS x USING (run, trajectory, order_seed, edit_count)
    WHERE kind NOT IN ('capability', 'harmonic mean', 'mean')
),
-- every measure of every point, except those that are means of measures
simple AS (
    SELECT
        * EXCLUDE (reason),
        CASE WHEN NOT isnan(raw) THEN raw END AS value,
        CASE
            WHEN isnan(raw) THEN 'the model''s likelihoods are not numbers'
            WHEN probe IS NULL AND perplexity IS NULL THEN 'no perplexity was measured'
            WHEN probe IS NULL AND raw IS NULL THEN 'the pristine model has not read these texts'
            WHEN num_rows IS NULL AND probe IS NOT NULL THEN format('no {} prompt was asked under the protocol {}', probe, protocol)
            ELSE reason
        END AS reason,
        kind IN ('exact match', 'tokens', 'agreement', 'preferred') AS is_rate,
        CASE kind WHEN 'margin' THEN -1 WHEN 'perplexity' THEN 1 ELSE 0 END AS least_possible,
        CASE WHEN kind IN ('margin', 'similarity') THEN 1 ELSE 'inf'::DOUBLE END AS most_possible,
        CASE WHEN is_rate THEN wilson_low(value, n)
            WHEN value + error IS NOT NULL THEN greatest(least_possible, value - z95() * error) END AS low,
        CASE WHEN is_rate THEN wilson_high(value, n)
            WHEN value + error IS NOT NULL THEN least(most_possible, value + z95() * error) END AS high
    FROM found
),
parts(preset, measure, of_measure) AS (
    VALUES
        ('counterfact', 'score', 'efficacy_score'), ('counterfact', 'score', 'paraphrase_score'), ('counterfact', 'score', 'neighbourhood_score'),
        ('wise', 'average', 'reliability'), ('wise', 'average', 'generalization'), ('wise', 'average', 'locality')
),
taken_together AS (
    SELECT
        s.run, s.trajectory, s.order_seed, s.model, s.method, s.dataset, s.edit_count, s.preset, p.measure,
        count(s.value) = count(*) AS is_whole, sum(s.n)::BIGINT AS n,
        avg(s.value) AS mean, sqrt(sum(((s.high - s.low) / 2) ** 2)) / count(*) AS half_width,
        harmonic_mean(list(s.value)) AS harmonic, harmonic_mean(list(s.low)) AS harmonic_low, harmonic_mean(list(s.high)) AS harmonic_high,
        max(s.measure || ': ' || s.reason) FILTER (WHERE s.value IS NULL) AS reason
    FROM simple AS s JOIN parts AS p ON s.preset = p.preset AND s.measure = p.of_measure
    GROUP BY s.run, s.trajectory, s.order_seed, s.model, s.method, s.dataset, s.edit_count, s.preset, p.measure
),
combined AS (
    SELECT
        * EXCLUDE (reason), kind = 'mean' AS is_mean,
        CASE WHEN is_whole THEN CASE WHEN is_mean THEN mean ELSE harmonic END END AS value,
        CASE WHEN is_whole THEN CASE WHEN is_mean THEN greatest(0, mean - half_width) ELSE harmonic_low END END AS low,
        CASE WHEN is_whole THEN CASE WHEN is_mean THEN least(1, mean + half_width) ELSE harmonic_high END END AS high,
        CASE WHEN NOT is_whole THEN reason END AS reason
    FROM taken_together JOIN preset_measures USING (preset, measure)
),
measured AS (
    SELECT run, trajectory, order_seed, model, method, dataset, edit_count, preset, measure, value, n, low, high, unit, reason FROM simple
    UNION ALL BY NAME
    SELECT run, trajectory, order_seed, model, method, dataset, edit_count, preset, measure, value, n, low, high, unit, reason FROM combined
),
points AS (
    FROM with_pristine('measured')
),
with_capability AS (
    FROM points
    UNION ALL BY NAME
    SELECT
        run, trajectory, order_seed, model, p.method, dataset, edit_count, 'should-we-edit' AS preset,
        coalesce(c.task, 'mean') AS measure, c.value, coalesce(c.n, 0) AS n, c.low, c.high, 'share' AS unit,
        CASE WHEN c.task IS NULL THEN 'no general benchmark was run' ELSE c.reason END AS reason
    FROM (SELECT DISTINCT run, trajectory, order_seed, model, method, dataset, edit_count FROM points) AS p
    LEFT JOIN capability_by_edit_count AS c USING (run, trajectory, order_seed, model, dataset, edit_count)
)
SELECT
    run, trajectory, coalesce(t.label, p.method) AS label, p.method, model, dataset, order_seed,
    preset, measure, edit_count, value, n, low, high, unit,
    coalesce(reason, CASE WHEN value IS NOT NULL AND low IS NULL THEN 'one value alone has no interval' END) AS reason
FROM with_capability AS p LEFT JOIN trajectories AS t USING (run, trajectory, order_seed, model, dataset)
ORDER BY run, trajectory, order_seed, preset, measure, edit_count
