-- Every instance of every run, the oldest first.
SELECT
    run, instance, started_at, ended_at, status, error, commit, dirty, versions, hardware, requested_by, changes,
    num_computed, num_shared, baseline, num_moved, verdict, gate
FROM instances
ORDER BY run, started_at, instance
