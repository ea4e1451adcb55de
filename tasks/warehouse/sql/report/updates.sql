-- The largest update, and the largest change of the output on ordinary text, of the turns that led to each edit count:
-- the maximum over these turns and over the edited projections.
SELECT trajectory, order_seed, edit_count, quantity, max(value) AS value
FROM diagnostics_by_turn
WHERE run = $run AND site IS NOT NULL AND quantity IN ('preservation', 'update_norm') AND value > 0
GROUP BY ALL
ORDER BY edit_count
