-- The quantities that a method logs during editing, turn by turn: early signs of a collapse.
--
-- first_edit, last_edit   the turn's edits
-- site          the projection, e.g. 5.down_proj; null for quantities of the whole turn
-- quantity      as named in the method's log. For locate-then-edit methods: residual (missing at the edited keys before the
--               write), memorization (after it), preservation (root mean square change of the output on ordinary text),
--               update_norm, condition_number (a lower bound), pseudo_inverse (1 if the system was singular); for the
--               site `value`: loss_before, loss_after, steps, relative_shift
-- value         the quantity; so_far: its running maximum over the trajectory's turns
-- A turn has one row per trajectory, also for a cumulative method, which edits the whole set again.
SELECT
    run, trajectory, coalesce(t.label, d.method) AS label, d.method AS method, model, dataset, order_seed, edit_count,
    first_edit, last_edit, site, quantity, value,
    max(value) OVER (
        PARTITION BY run, trajectory, model, dataset, order_seed, site, quantity ORDER BY last_edit, edit_count
    ) AS so_far
FROM diagnostics AS d LEFT JOIN trajectories AS t USING (run, trajectory, order_seed, model, dataset)
ORDER BY run, trajectory, order_seed, last_edit, site NULLS FIRST, quantity
