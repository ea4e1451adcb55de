-- The cost of editing: the stage `edit` that led to each edit count.
--
-- seconds, edits      of the step that ended at this edit count; for a method that edits the cumulative set again, all edits
-- seconds_per_edit, edits_per_second  their two ratios; null without an edit
-- peak_memory_bytes   the highest of the step; null if it was not measured
SELECT
    run, trajectory, coalesce(any_value(t.label), any_value(c.method)) AS label, any_value(c.method) AS method,
    model, dataset, order_seed, edit_count,
    sum(c.seconds) AS seconds, sum(c.num_items)::BIGINT AS edits,
    CASE WHEN sum(c.num_items) > 0 THEN sum(c.seconds) / sum(c.num_items) END AS seconds_per_edit,
    CASE WHEN sum(c.seconds) > 0 THEN sum(c.num_items) / sum(c.seconds) END AS edits_per_second,
    max(c.peak_memory_bytes) AS peak_memory_bytes
FROM costs AS c LEFT JOIN trajectories AS t USING (run, trajectory, order_seed, model, dataset)
WHERE c.stage = 'edit'
GROUP BY run, trajectory, model, dataset, order_seed, edit_count
ORDER BY run, trajectory, order_seed, edit_count
