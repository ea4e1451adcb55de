-- Every headline number of every instance.
SELECT run, instance, trajectory, label, order_seed, edit_count, measure, protocol, value, low, high, n, is_baseline
FROM history
ORDER BY run, trajectory, order_seed, measure, protocol, edit_count, started_at, instance
