-- Do edits last? Each measure before and after one more step (configuration key `after`), on the same items.
--
-- after      quantize_int8, quantize_int4  the linear layers rounded to integers, one scale per output channel
--            merge_base:SHARE  base + SHARE * (edited - base)
--            finetune:STEPS    trained on plain text
-- measure    reliability, generalization, locality, portability  as in reliability_by_edit_count
--            capability  the items of all lm-eval tasks pooled, each with equal weight, as in capability_change
--            perplexity  of all corpora together
-- protocol   generated | teacher_forced | probability; null for capability and perplexity
-- n          prompts, items or texts that have a value both before and after
-- before, value  the mean over these, of the edited model and of the model after the step
-- difference  value - before
-- low, high  95 % interval of the difference: Agresti and Min's for pairs (see macros/statistics.sql); of perplexity from the
--            spread of the texts' changes, with perplexity before taken as given, null for one text
-- kept       value / before; null if before is 0
--
-- The rows of a step are in the tables `*_after` alone, so no other view holds them.
WITH measures(measure, probe, by_agreement) AS (
    VALUES
        ('reliability', 'edit', false), ('generalization', 'rephrase', false),
        ('locality', 'locality', true), ('portability', 'portability', false)
),
asked AS (
    SELECT
        run, trajectory, order_seed, model, method, dataset, edit_count, a.after, measure, protocol,
        CASE WHEN by_agreement THEN b.agreement ELSE b.score END AS before,
        CASE WHEN by_agreement THEN a.agreement ELSE a.score END AS value
    FROM outcomes_after AS a
    JOIN outcomes AS b USING (
        run, trajectory, order_seed, model, method, dataset, edit_count, position, case_id, probe, probe_index, protocol
    )
    JOIN measures USING (probe)
),
headlines AS (
    SELECT DISTINCT run, model, dataset, task, metric FROM capability WHERE main
),
items AS (
    SELECT
        run, trajectory, order_seed, model, method, dataset, edit_count, a.after, 'capability' AS measure,
        NULL::VARCHAR AS protocol, b.value AS before, a.value
    FROM (FROM capability_samples_after SEMI JOIN headlines USING (run, model, dataset, task, metric)) AS a
    JOIN capability_samples AS b USING (
        run, trajectory, order_seed, model, method, dataset, edit_count, task, doc_id, metric
    )
),
pairs AS (
    FROM asked UNION ALL FROM items
),
shares AS (
    SELECT
        run, trajectory, order_seed, model, method, dataset, edit_count, pairs.after, measure, protocol, count(*) AS n,
        avg(before) AS before, avg(value) AS value, sum(value - before) AS changes,
        sum((value - before) ** 2) AS squares
    FROM pairs WHERE isfinite(before) AND isfinite(value)
    GROUP BY ALL
),
texts AS (
    SELECT
        run, trajectory, order_seed, model, method, dataset, edit_count, a.after, a.num_tokens AS tokens,
        b.nll AS nll_before, a.nll - b.nll AS change
    FROM perplexity_after AS a
    JOIN perplexity AS b USING (
        run, trajectory, order_seed, model, method, dataset, edit_count, corpus, text_id, num_tokens
    )
    WHERE a.num_tokens > 0
),
sums AS (
    SELECT
        run, trajectory, order_seed, model, method, dataset, edit_count, texts.after, count(*) AS n,
        exp(sum(nll_before) / sum(tokens)) AS before, sum(change) / sum(tokens) AS moved, sum(tokens) AS num_tokens,
        sum(change * change) - 2 * moved * sum(change * tokens) + moved ** 2 * sum(tokens::DOUBLE * tokens) AS squares
    FROM texts GROUP BY ALL
),
spread AS (
    SELECT
        *, CASE WHEN n > 1 AND isfinite(moved) THEN
            z95() * sqrt(greatest(0, squares) * n / (n - 1)) / num_tokens END AS margin
    FROM sums
),
measured AS (
    SELECT
        * EXCLUDE (changes, squares), changes / n AS difference,
        paired_low(changes, squares, n) AS low, paired_high(changes, squares, n) AS high
    FROM shares
    UNION ALL BY NAME
    SELECT
        * EXCLUDE (moved, num_tokens, squares, margin), 'perplexity' AS measure, before * exp(moved) AS value,
        before * (exp(moved) - 1) AS difference, before * (exp(moved - margin) - 1) AS low,
        before * (exp(moved + margin) - 1) AS high
    FROM spread
)
SELECT
    run, trajectory, coalesce(t.label, m.method) AS label, m.method, model, dataset, order_seed, edit_count, m.after,
    measure, protocol, n, before, value, difference, low, high, CASE WHEN before > 0 THEN value / before END AS kept
FROM measured AS m LEFT JOIN trajectories AS t USING (run, trajectory, order_seed, model, dataset)
ORDER BY run, trajectory, order_seed, edit_count, m.after, measure, protocol
