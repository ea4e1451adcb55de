-- The runs of which a trajectory has ended: when they began, with which engine, where.
SELECT
    run, min(started_at) AS started_at, max_by(engine, started_at) AS engine, max_by(hardware, started_at) AS hardware,
    max_by(versions, started_at) AS versions
FROM runs
GROUP BY run
ORDER BY run
