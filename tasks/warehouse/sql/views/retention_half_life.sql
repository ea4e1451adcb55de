-- The number of edits after which half of the edits are forgotten: one row per edit count and protocol of a trajectory.
--
-- protocol   generated | teacher_forced | probability
-- newest     share of the youngest edits that is right: of as many of the youngest decades (see retention_by_age) as are
--            needed for 10 scored edits, if there are 10; newest_n, newest_low, newest_high: Wilson's 95 % interval
-- half_life  the age, in edits, at which the score has fallen to half of newest: between the first decade that is at or
--            below half and the one before it, interpolated on the logarithm of age. The age of a decade is the geometric mean
--            of its bounds (0 counts as 1; of the oldest decade the ages end at edit_count - 1)
-- reason     why half_life is null; '> 999': the score has not fallen to half by the oldest age asked about, 999
--
-- It compares old with new edits at one edit count. If the newest edits are lost as well, it is half of little.
-- It is as uncertain as the scores of the decades; retention_by_age has their intervals.
WITH counted AS (
    SELECT
        *, coalesce(sum(n) OVER (
            PARTITION BY run, trajectory, order_seed, protocol, edit_count ORDER BY age_low
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ), 0) AS num_younger
    FROM retention_by_age WHERE value IS NOT NULL
),
decades AS (
    SELECT
        run, trajectory, label, method, model, dataset, order_seed, protocol, edit_count, num_younger < 10 AS is_newest,
        CASE WHEN num_younger >= 10 THEN age_low END AS decade,
        sum(value * n) / sum(n) AS value, sum(n)::BIGINT AS n, min(greatest(age_low, 1))::DOUBLE AS age_start,
        max(greatest(least(age_high, edit_count - 1), 1))::DOUBLE AS age_end, max(least(age_high, edit_count - 1)) AS oldest
    FROM counted
    GROUP BY ALL
),
placed AS (
    SELECT
        *, sqrt(age_start * age_end) AS age,
        first_value(value) OVER ages AS newest, first_value(n) OVER ages AS newest_n,
        lag(value) OVER ages AS value_before, lag(sqrt(age_start * age_end)) OVER ages AS age_before
    FROM decades
    WINDOW ages AS (PARTITION BY run, trajectory, order_seed, protocol, edit_count ORDER BY age_start)
),
fallen AS (
    SELECT
        run, trajectory, label, method, model, dataset, order_seed, protocol, edit_count,
        any_value(newest) AS newest, any_value(newest_n) AS newest_n, max(oldest) AS oldest,
        min_by(
            exp(ln(age_before) + (value_before - newest / 2) / (value_before - value) * (ln(age) - ln(age_before))), age
        ) FILTER (NOT is_newest AND value <= newest / 2) AS half_life
    FROM placed
    GROUP BY ALL
)
SELECT
    run, trajectory, label, method, model, dataset, order_seed, protocol, edit_count, newest, newest_n,
    wilson_low(newest, newest_n) AS newest_low, wilson_high(newest, newest_n) AS newest_high,
    CASE WHEN newest > 0 THEN half_life END AS half_life,
    CASE WHEN newest = 0 THEN 'nothing new is known' WHEN half_life IS NULL THEN '> ' || oldest END AS reason
FROM fallen
ORDER BY run, trajectory, order_seed, protocol, edit_count
