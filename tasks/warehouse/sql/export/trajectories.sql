-- The trajectories of the run $run with their configuration and where they collapsed: a run of an experiment tracker each.
WITH ended AS (
    SELECT
        trajectory, order_seed, config, method_config, model_digest, engine, versions, hardware, started_at,
        edit_count AS planned_edit_count
    FROM runs
    WHERE run = $run
    QUALIFY row_number() OVER (PARTITION BY trajectory, order_seed ORDER BY edit_count DESC, started_at DESC) = 1
),
newest AS (
    SELECT instance, "commit" FROM instances WHERE run = $run ORDER BY started_at DESC, instance DESC LIMIT 1
)
SELECT
    t.run, trajectory, order_seed, t.label, t.method, t.model, t.dataset, t.status, t.error,
    c.collapse_at, c.reason AS collapse_reason, e.* EXCLUDE (trajectory, order_seed), n.instance, n."commit"
FROM trajectories AS t
LEFT JOIN ended AS e USING (trajectory, order_seed)
LEFT JOIN collapse_point AS c USING (run, trajectory, order_seed)
LEFT JOIN newest AS n ON TRUE
WHERE t.run = $run
ORDER BY trajectory, order_seed
