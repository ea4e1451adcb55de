-- Every number that the leaderboard and the curves show: one row per trajectory, edit count, measure and protocol.
--
-- measure    reliability | generalization | locality | portability, under a protocol; capability | perplexity | seconds, under none
-- value      perplexity: over the pristine model's, the worst of the corpora; seconds: of an edit
-- low, high  95 %; of perplexity: its interval, over the pristine model's value
SELECT run, trajectory, order_seed, edit_count, measure, protocol, value, low, high, n
FROM reliability_by_edit_count
WHERE measure IN ('reliability', 'generalization', 'locality', 'portability') AND value IS NOT NULL
UNION ALL
SELECT run, trajectory, order_seed, edit_count, 'capability', NULL, value, low, high, n
FROM capability_by_edit_count
WHERE task = 'mean' AND value IS NOT NULL
UNION ALL
(
    SELECT
        run, trajectory, order_seed, edit_count, 'perplexity', NULL,
        ratio, low / value * ratio, high / value * ratio, n
    FROM perplexity_by_edit_count
    WHERE ratio IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY run, trajectory, order_seed, edit_count ORDER BY ratio DESC, corpus) = 1
)
UNION ALL
SELECT run, trajectory, order_seed, edit_count, 'seconds', NULL, seconds_per_edit, NULL, NULL, edits
FROM cost_per_edit
WHERE seconds_per_edit IS NOT NULL
ORDER BY run, trajectory, order_seed, measure, protocol, edit_count
