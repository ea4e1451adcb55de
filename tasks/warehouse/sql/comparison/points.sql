-- The means of two runs at every edit count, with the interval of each run alone, as their reports show them.
-- The table `compared` gives trajectories of the two runs (side 1 and 2) their common name.
SELECT side, name, edit_count, 'outcome' AS kind, measure, value, low, high, n
FROM reliability_by_edit_count JOIN compared USING (run, trajectory, order_seed)
WHERE protocol = $protocol AND edit_count > 0 AND measure <> 'locality_gold'
UNION ALL
SELECT side, name, edit_count, 'capability', task, value, low, high, n
FROM capability_by_edit_count JOIN compared USING (run, trajectory, order_seed)
WHERE edit_count > 0
UNION ALL
SELECT side, name, edit_count, 'perplexity', corpus, value, low, high, n
FROM perplexity_by_edit_count JOIN compared USING (run, trajectory, order_seed)
WHERE edit_count > 0
