-- How long a run edited and measured at the same time: from when each stage of `costs` began and ended.
--
-- editing_seconds     time in which at least one edit or one more step was being made
-- measuring_seconds   time in which at least one checkpoint was being swapped in, asked or measured
-- both_seconds        time in which both went on
-- busy_seconds        time in which either went on
-- share               both_seconds / busy_seconds; 0 where one follows the other
WITH spans AS (
    SELECT
        run, stage IN ('edit', 'after') AS edits,
        epoch(ended_at) - seconds AS from_second, epoch(ended_at) AS to_second
    FROM (
        SELECT run, stage, seconds, ended_at FROM costs
        UNION ALL
        SELECT run, stage, seconds, ended_at FROM costs_after
    )
    WHERE ended_at IS NOT NULL AND stage != 'engine_start'
),

changes AS (
    SELECT run, from_second AS at_second, edits::INT AS editing, (NOT edits)::INT AS measuring FROM spans
    UNION ALL
    SELECT run, to_second, -(edits::INT), -((NOT edits)::INT) FROM spans
),

states AS (
    SELECT
        run, lead(at_second) OVER times - at_second AS seconds,
        sum(editing) OVER times > 0 AS edits, sum(measuring) OVER times > 0 AS measures
    FROM (SELECT run, at_second, sum(editing) AS editing, sum(measuring) AS measuring FROM changes GROUP BY ALL)
    WINDOW times AS (PARTITION BY run ORDER BY at_second)
)

SELECT
    run,
    coalesce(sum(seconds) FILTER (WHERE edits), 0) AS editing_seconds,
    coalesce(sum(seconds) FILTER (WHERE measures), 0) AS measuring_seconds,
    coalesce(sum(seconds) FILTER (WHERE edits AND measures), 0) AS both_seconds,
    coalesce(sum(seconds) FILTER (WHERE edits OR measures), 0) AS busy_seconds,
    CASE WHEN busy_seconds > 0 THEN both_seconds / busy_seconds END AS share
FROM states
GROUP BY run
ORDER BY run
