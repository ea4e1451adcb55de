-- The settings that each search has chosen: one row per method, with their value on validation and on test edits.
--
-- study        digest of what determines the search's trials
-- trial        the chosen one: the completed trial with the highest value on the validation edits, of equal ones the first
-- settings     its settings, JSON
-- kept         what the preset file has: 'trial', or 'given' where the chosen trial is no better on the validation edits
-- num_trials, num_completed, num_pruned, num_failed  trials of the search
-- validation   the objective on the validation edits; the best of all trials, so it flatters the settings
-- test         the objective on test edits, which the search never saw; null until they are measured
-- gap          validation - test
-- given_validation, given_test  the same for the settings that the configuration gives: those of before the search
-- gain         test - given_test
-- *_low        lower bound of the 95 % interval (as in tuning_trials; a difference combines both intervals likewise)
-- *_high       upper bound of it
-- seconds      editing and measuring, of all trials of the search
WITH chosen AS (
    SELECT
        run, trajectory, any_value(label) AS label, method, model, dataset, study,
        arg_max(trial, (value, -trial)) FILTER (WHERE state = 'completed') AS trial,
        count(*) AS num_trials,
        count(*) FILTER (WHERE state = 'completed') AS num_completed,
        count(*) FILTER (WHERE state = 'pruned') AS num_pruned,
        count(*) FILTER (WHERE state = 'failed') AS num_failed,
        sum(seconds) AS seconds
    FROM tuning_trials
    WHERE split = 'validation' AND trial IS NOT NULL
    GROUP BY run, trajectory, method, model, dataset, study
),
found AS (
    SELECT
        c.*, v.settings, v.value AS validation, v.low AS validation_low, v.high AS validation_high,
        t.value AS test, t.low AS test_low, t.high AS test_high,
        gv.value AS given_validation, gv.low AS given_validation_low, gv.high AS given_validation_high,
        gt.value AS given_test, gt.low AS given_test_low, gt.high AS given_test_high
    FROM chosen AS c
    LEFT JOIN tuning_trials AS v
        ON (v.run, v.trajectory, v.study, v.split, v.trial) = (c.run, c.trajectory, c.study, 'validation', c.trial)
    LEFT JOIN tuning_trials AS t
        ON (t.run, t.trajectory, t.study, t.split, t.trial) = (c.run, c.trajectory, c.study, 'test', c.trial)
    LEFT JOIN tuning_trials AS gv
        ON (gv.run, gv.trajectory, gv.study, gv.split) = (c.run, c.trajectory, c.study, 'validation') AND gv.trial IS NULL
    LEFT JOIN tuning_trials AS gt
        ON (gt.run, gt.trajectory, gt.study, gt.split) = (c.run, c.trajectory, c.study, 'test') AND gt.trial IS NULL
)
SELECT
    run, trajectory, label, method, model, dataset, study, trial, settings,
    CASE WHEN given_validation >= validation THEN 'given' ELSE 'trial' END AS kept, num_trials, num_completed, num_pruned,
    num_failed, validation, validation_low, validation_high, test, test_low, test_high,
    validation - test AS gap,
    gap - sqrt((validation - validation_low) ** 2 + (test_high - test) ** 2) AS gap_low,
    gap + sqrt((validation_high - validation) ** 2 + (test - test_low) ** 2) AS gap_high,
    given_validation, given_validation_low, given_validation_high, given_test, given_test_low, given_test_high,
    test - given_test AS gain,
    gain - sqrt((test - test_low) ** 2 + (given_test_high - given_test) ** 2) AS gain_low,
    gain + sqrt((test_high - test) ** 2 + (given_test - given_test_low) ** 2) AS gain_high,
    seconds
FROM found
ORDER BY run, trajectory, study
