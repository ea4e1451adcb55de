-- The quantities that a method logs during editing, turn by turn: early signs of a collapse.
--
-- first_edit, last_edit   the turn's edits
-- site          the projection, e.g. 5.down_proj; null for quantities of the whole turn
-- quantity      as named in the method's log. For locate-then-edit methods: residual (missing at the edited keys before the
--               write), memorization (after it), preservation (root mean square change of the output on ordinary text),
--               update_norm, condition_number (a lower bound), pseudo_inverse (1 if the system was singular); for the
--               site `value`: loss_before, loss_after, steps, relative_shift. unmoved, dropped: the turn's edits that could
--               not move, and that the method left out (see warnings)
-- value         the quantity; so_far: its running maximum over the trajectory's turns
-- on_branch     whether the turn led to a checkpoint only, and was not continued from; so_far leaves it out, except at itself
-- A turn has one row per trajectory, also for a cumulative method, which edits the whole set again.
WITH turns AS (
    FROM diagnostics
    -- checkpoints that were made at different times may both have the main line's turns before them
    QUALIFY row_number() OVER (
        PARTITION BY run, trajectory, model, dataset, order_seed, site, quantity, first_edit, last_edit, on_branch
        ORDER BY edit_count
    ) = 1
)
SELECT
    run, trajectory, coalesce(t.label, d.method) AS label, d.method AS method, model, dataset, order_seed, edit_count,
    first_edit, last_edit, on_branch, site, quantity, value,
    greatest(value, max(value) FILTER (on_branch IS NOT TRUE) OVER (
        PARTITION BY run, trajectory, model, dataset, order_seed, site, quantity ORDER BY last_edit, edit_count
    )) AS so_far
FROM turns AS d LEFT JOIN trajectories AS t USING (run, trajectory, order_seed, model, dataset)
ORDER BY run, trajectory, order_seed, last_edit, site NULLS FIRST, quantity
