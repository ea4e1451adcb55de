-- Every trajectory (model x method x dataset x order seed) except the pristine model, one row each.
-- A trajectory is known as soon as it has a checkpoint, a cost, or its row in `runs` (written when it ends).
--
-- label               the method's name in tables and plots
-- planned_edit_count  the last edit count asked for; null until the trajectory has ended
-- status, error       completed | failed, and why; null until the trajectory has ended
WITH seen AS (
    SELECT run, trajectory, order_seed, model, method, dataset FROM runs
    UNION
    SELECT run, trajectory, order_seed, model, method, dataset FROM checkpoints
    UNION
    SELECT run, trajectory, order_seed, model, method, dataset FROM costs
),
ended AS (
    SELECT run, trajectory, order_seed, label, edit_count AS planned_edit_count, status, error
    FROM runs
    QUALIFY row_number() OVER (PARTITION BY run, trajectory, order_seed ORDER BY edit_count DESC, started_at DESC) = 1
)
SELECT
    run, trajectory, order_seed, model, method, dataset,
    coalesce(label, method) AS label, planned_edit_count, status, error
FROM seen LEFT JOIN ended USING (run, trajectory, order_seed)
WHERE method <> 'none'
ORDER BY run, trajectory, order_seed
