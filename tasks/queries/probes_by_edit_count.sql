-- The cheap probes side by side, one row each at every edit count: what might foretell a loss of general ability.
--
-- probe   perplexity_ratio      perplexity over the pristine model's, the worst of the corpora; inf where it is no number
--         relative_update       norm of the change of all edited weights over that of the pristine ones
--         turn_<quantity>       a quantity of diagnostics_by_turn, the largest so far over turns and sites
--         empty, repetitive, mean_tokens, length_share  as in text_health
--         reliability_<protocol>, locality_<protocol>   as in reliability_by_edit_count
-- value   null where the probe has none
--
-- Edit count 0 has no rows: there, most of these are given by definition.
WITH values_found AS (
    SELECT
        run, trajectory, order_seed, edit_count, 'perplexity_ratio' AS probe,
        max(CASE WHEN isnan(ratio) THEN 'inf' ELSE ratio END) AS value
    FROM perplexity_by_edit_count GROUP BY ALL
    UNION ALL
    SELECT run, trajectory, order_seed, edit_count, 'relative_update', relative_update
    FROM weight_norms WHERE parameter = 'all'
    UNION ALL
    SELECT run, trajectory, order_seed, edit_count, 'turn_' || quantity, max(so_far)
    FROM diagnostics_by_turn WHERE site IS NOT NULL GROUP BY ALL
    UNION ALL
    SELECT run, trajectory, order_seed, edit_count, probe, value
    FROM (FROM text_health UNPIVOT INCLUDE NULLS (value FOR probe IN (empty, repetitive, mean_tokens, length_share)))
    UNION ALL
    SELECT run, trajectory, order_seed, edit_count, measure || '_' || protocol, value
    FROM reliability_by_edit_count WHERE measure IN ('reliability', 'locality')
)
SELECT run, trajectory, label, method, model, dataset, order_seed, edit_count, probe, value
FROM values_found JOIN trajectories USING (run, trajectory, order_seed)
WHERE edit_count > 0
ORDER BY run, trajectory, order_seed, probe, edit_count
