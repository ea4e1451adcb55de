-- Perplexity over the pristine model's (the worst of the corpora) and mean capability, one row per checkpoint with both.
WITH texts AS (
    SELECT trajectory, order_seed, edit_count, max(ratio) AS ratio
    FROM perplexity_by_edit_count WHERE run = $run GROUP BY ALL
)
SELECT trajectory, order_seed, edit_count, CASE WHEN isfinite(ratio) THEN ratio END AS ratio, value, low, high
FROM capability_by_edit_count JOIN texts USING (trajectory, order_seed, edit_count)
WHERE run = $run AND task = 'mean' AND value IS NOT NULL
ORDER BY trajectory, order_seed, edit_count
