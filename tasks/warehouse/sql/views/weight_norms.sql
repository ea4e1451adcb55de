-- The change of the edited weights at every edit count: of each edited tensor, and of all together as parameter 'all'.
--
-- parameter        the tensor's name in the model; 'all': all edited tensors together
-- weight_norm, base_norm, update_norm  Frobenius norms of the edited tensor, the pristine one, and their difference;
--                  for 'all': the norm of all tensors together (root of the summed squares)
-- relative_update  update_norm / base_norm
--
-- Edit count 0 is the pristine model, whose weights are the base's and whose difference is 0 by definition.
WITH tensors AS (
    SELECT run, trajectory, order_seed, model, method, dataset, edit_count, parameter, weight_norm, base_norm, update_norm
    FROM checkpoints WHERE method <> 'none' AND edit_count > 0
    UNION ALL
    SELECT DISTINCT run, trajectory, order_seed, model, method, dataset, 0, parameter, base_norm, base_norm, 0.0
    FROM checkpoints WHERE method <> 'none'
),
norms AS (
    SELECT * FROM tensors
    UNION ALL
    SELECT
        run, trajectory, order_seed, model, method, dataset, edit_count, 'all',
        sqrt(sum(weight_norm ** 2)), sqrt(sum(base_norm ** 2)), sqrt(sum(update_norm ** 2))
    FROM tensors
    GROUP BY run, trajectory, order_seed, model, method, dataset, edit_count
)
SELECT
    run, trajectory, coalesce(t.label, w.method) AS label, w.method, model, dataset, order_seed, edit_count, parameter,
    weight_norm, base_norm, update_norm, CASE WHEN base_norm > 0 THEN update_norm / base_norm END AS relative_update
FROM norms AS w LEFT JOIN trajectories AS t USING (run, trajectory, order_seed, model, dataset)
ORDER BY run, trajectory, order_seed, edit_count, parameter = 'all', parameter
