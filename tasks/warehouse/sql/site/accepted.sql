-- The instances that were accepted as baselines.
SELECT run, instance, accepted_at, accepted_by, note FROM accepted ORDER BY run, accepted_at, instance
