-- The rows that a run's trajectories stored when they ended, in the order of their start.
SELECT * FROM runs WHERE run = $run ORDER BY started_at, trajectory, order_seed
