-- Every trajectory of every run, with its collapse.
SELECT run, trajectory, order_seed, label, method, model, dataset, status, error, measured_up_to, collapse_at, reason
FROM collapse_point
ORDER BY run, label, trajectory, order_seed
