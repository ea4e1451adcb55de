-- The single edits that break a model, among those that were scanned (table `scans`), the worst first: one row per case.
--
-- position, case_id, prompt, subject, target_new, base_perplexity, base_token_perplexity, update_norm  as in `scans`
-- reason        not finite | ratio | perplexity: the first of these criteria that is met
-- perplexity    the mean of the texts' perplexities after the edit; token_perplexity: over all texts together
-- ratio         perplexity / base_perplexity, the pristine model's
-- subject_first  the prompt begins with the subject: ROME's two keys of such a subject differ much
-- learned       the edited model gives the new answer (teacher forced, every token)
WITH limits AS (
    SELECT
        -- perplexity: above this multiple of the pristine model's
        10.0 AS multiple,
        -- perplexity: above this (the cut-off in use with models that begin below 100) ...
        1000.0 AS most,
        -- ... where the pristine model's is at most this; for a worse one the limit means nothing
        500.0 AS most_before
),
judged AS (
    SELECT
        *, coalesce(starts_with(prompt, subject), FALSE) AS subject_first,
        CASE
            WHEN NOT isfinite(perplexity) THEN 'not finite'
            WHEN ratio > multiple THEN 'ratio'
            WHEN perplexity > most AND base_perplexity <= most_before THEN 'perplexity'
        END AS reason
    FROM scans, limits
)
SELECT
    run, trajectory, label, method, model, dataset, order_seed, position, case_id, prompt, subject, target_new,
    reason, perplexity, token_perplexity, base_perplexity, base_token_perplexity, ratio, update_norm, learned,
    subject_first
FROM judged
WHERE reason IS NOT NULL
ORDER BY run, trajectory, order_seed, perplexity DESC, position
