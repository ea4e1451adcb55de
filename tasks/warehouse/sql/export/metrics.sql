-- Every number of the trajectories of the run $run by edit count, as an experiment tracker takes it: a name and a value.
--
-- name   e.g. generated/reliability, capability/mean, perplexity/held_out; name_low and name_high are the bounds of its
--        95 % interval, name_n the number of items behind it
WITH measured AS (
    SELECT trajectory, order_seed, edit_count, protocol || '/' || measure AS name, value, low, high, n
    FROM reliability_by_edit_count WHERE run = $run
    UNION ALL
    SELECT trajectory, order_seed, edit_count, protocol || '/retention/' || age, value, low, high, n
    FROM retention_by_age WHERE run = $run
    UNION ALL
    SELECT trajectory, order_seed, edit_count, 'capability/' || task, value, low, high, n
    FROM capability_by_edit_count WHERE run = $run
    UNION ALL
    SELECT trajectory, order_seed, edit_count, 'perplexity/' || corpus, value, low, high, n
    FROM perplexity_by_edit_count WHERE run = $run
    UNION ALL
    SELECT trajectory, order_seed, edit_count, 'perplexity_ratio/' || corpus, ratio, NULL, NULL, NULL
    FROM perplexity_by_edit_count WHERE run = $run
    UNION ALL
    SELECT trajectory, order_seed, edit_count, 'text/empty', empty, empty_low, empty_high, n
    FROM text_health WHERE run = $run
    UNION ALL
    SELECT trajectory, order_seed, edit_count, 'text/repetitive', repetitive, repetitive_low, repetitive_high, n
    FROM text_health WHERE run = $run
    UNION ALL
    SELECT trajectory, order_seed, edit_count, 'weights/relative_update', relative_update, NULL, NULL, NULL
    FROM weight_norms WHERE run = $run AND parameter = 'all'
    UNION ALL
    SELECT trajectory, order_seed, edit_count, 'cost/seconds_per_edit', seconds_per_edit, NULL, NULL, NULL
    FROM cost_per_edit WHERE run = $run
    UNION ALL
    SELECT trajectory, order_seed, edit_count, 'cost/peak_memory_bytes', peak_memory_bytes, NULL, NULL, NULL
    FROM cost_per_edit WHERE run = $run
),
pieces AS (
    SELECT trajectory, order_seed, edit_count, name, value::DOUBLE AS value FROM measured
    UNION ALL
    SELECT trajectory, order_seed, edit_count, name || '_low', low FROM measured
    UNION ALL
    SELECT trajectory, order_seed, edit_count, name || '_high', high FROM measured
    UNION ALL
    SELECT trajectory, order_seed, edit_count, name || '_n', n FROM measured
)
SELECT trajectory, order_seed, edit_count, name, value
FROM pieces
WHERE value IS NOT NULL
ORDER BY trajectory, order_seed, edit_count, name
