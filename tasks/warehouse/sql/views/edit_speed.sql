-- How long edits took along a trajectory: whether an edit costs more the more edits were made before.
--
-- first_edit, edits   the stretch: up to the next checkpoint, or until the leading digit of a turn's first edit changes
--               (1, 2, ... 9, 10, 20, ... 90, 100, ...), so that a million edits are no more than some fifty rows
-- turns         the turns in it
-- seconds_per_1000_edits   the median over them, reading and applying included; of a method that edits the cumulative
--               set anew, by all edits so far. A turn has a cost of its own, so an edit in a small one takes longer
WITH turns AS (
    SELECT
        *,
        1000 * value / (last_edit - first_edit + 1) AS seconds,
        first_edit // (10 ** floor(log10(first_edit)))::BIGINT * (10 ** floor(log10(first_edit)))::BIGINT AS stretch
    FROM diagnostics
    WHERE quantity = 'seconds' AND site IS NULL
)
SELECT
    run, trajectory, coalesce(any_value(t.label), any_value(d.method)) AS label, any_value(d.method) AS method,
    model, dataset, order_seed, edit_count,
    min(first_edit) AS first_edit, max(last_edit) AS edits, count(*) AS turns,
    median(seconds) AS seconds_per_1000_edits
FROM turns AS d LEFT JOIN trajectories AS t USING (run, trajectory, order_seed, model, dataset)
GROUP BY run, trajectory, model, dataset, order_seed, edit_count, stretch
ORDER BY run, trajectory, order_seed, edit_count, stretch
