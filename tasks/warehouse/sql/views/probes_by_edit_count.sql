-- The cheap probes at every edit count, one row each: possible early signs of a loss of general ability.
--
-- probe   perplexity_ratio      perplexity over the pristine model's, the worst of the corpora; inf if it is not a number
--         relative_update       norm of the change of all edited weights over the norm of the pristine weights
--         turn_<quantity>       a quantity of diagnostics_by_turn, the largest so far over turns and sites
--         empty, repetitive, mean_tokens, length_share  as in text_health
--         reliability_<protocol>, locality_<protocol>   as in reliability_by_edit_count
-- value   null if the probe has none
-- n, low, high  for shares: the number of prompts or outputs, and Wilson's 95 % interval; null for other probes
--
-- Edit count 0 has no rows, as most probes are constant there by definition.
WITH health AS (
    SELECT
        run, trajectory, order_seed, edit_count, n,
        unnest([
            {probe: 'empty', value: empty, low: empty_low, high: empty_high},
            {probe: 'repetitive', value: repetitive, low: repetitive_low, high: repetitive_high},
            {probe: 'mean_tokens', value: mean_tokens, low: NULL, high: NULL},
            {probe: 'length_share', value: length_share, low: wilson_low(length_share, n), high: wilson_high(length_share, n)}
        ]) AS found
    FROM text_health
),
measured AS (
    SELECT
        run, trajectory, order_seed, edit_count, 'perplexity_ratio' AS probe,
        max(CASE WHEN isnan(ratio) THEN 'inf' ELSE ratio END) AS value, NULL AS n, NULL AS low, NULL AS high
    FROM perplexity_by_edit_count
    GROUP BY run, trajectory, order_seed, edit_count
    UNION ALL
    SELECT run, trajectory, order_seed, edit_count, 'relative_update', relative_update, NULL, NULL, NULL
    FROM weight_norms WHERE parameter = 'all'
    UNION ALL
    SELECT run, trajectory, order_seed, edit_count, 'turn_' || quantity, max(so_far), NULL, NULL, NULL
    FROM diagnostics_by_turn WHERE site IS NOT NULL
    GROUP BY run, trajectory, order_seed, edit_count, quantity
    UNION ALL
    SELECT
        run, trajectory, order_seed, edit_count, found.probe, found.value,
        CASE WHEN found.low IS NOT NULL THEN n END, found.low, found.high
    FROM health
    UNION ALL
    SELECT run, trajectory, order_seed, edit_count, measure || '_' || protocol, value, n, low, high
    FROM reliability_by_edit_count WHERE measure IN ('reliability', 'locality')
)
SELECT run, trajectory, label, method, model, dataset, order_seed, edit_count, probe, value, n, low, high
FROM measured JOIN trajectories USING (run, trajectory, order_seed)
WHERE edit_count > 0
ORDER BY run, trajectory, order_seed, probe, edit_count
