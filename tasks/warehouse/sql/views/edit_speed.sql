-- The time per edit along a trajectory: whether edits become slower with the number of earlier edits.
--
-- first_edit, edits   the stretch: up to the next checkpoint, or until the leading digit of a turn's first edit changes
--               (1, 2, ... 9, 10, 20, ... 90, 100, ...), so that a million edits have some fifty rows
-- turns         number of turns in the stretch
-- seconds_per_1000_edits   the median over them, including reading and applying; for a method that edits the
--               cumulative set again, over all edits so far. A turn has a fixed cost, so edits in small turns take longer
WITH turns AS (
    SELECT
        *,
        1000 * value / (last_edit - first_edit + 1) AS seconds,
        first_edit // (10 ** floor(log10(first_edit)))::BIGINT * (10 ** floor(log10(first_edit)))::BIGINT AS stretch
    FROM diagnostics
    WHERE quantity = 'seconds' AND site IS NULL
    -- checkpoints that were made at different times may both have the main line's turns before them
    QUALIFY row_number() OVER (
        PARTITION BY run, trajectory, model, dataset, order_seed, first_edit, last_edit, on_branch ORDER BY edit_count
    ) = 1
)
SELECT
    run, trajectory, coalesce(any_value(t.label), any_value(d.method)) AS label, any_value(d.method) AS method,
    model, dataset, order_seed, edit_count,
    min(first_edit) AS first_edit, max(last_edit) AS edits, count(*) AS turns,
    median(seconds) AS seconds_per_1000_edits
FROM turns AS d LEFT JOIN trajectories AS t USING (run, trajectory, order_seed, model, dataset)
GROUP BY run, trajectory, model, dataset, order_seed, edit_count, stretch
ORDER BY run, trajectory, order_seed, edit_count, stretch
