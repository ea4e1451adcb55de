-- Would a rule on a cheap probe have warned of the collapse of general ability, and how long before?
--
-- rule        the probe, above or below the threshold, in words
-- probe       one of probes_by_edit_count
-- threshold   what it is compared with; for a share, its whole 95 % interval: at the first edit counts it is a share
--             of a few prompts
-- warned_at   the first edit count at which the rule holds; null if at none
-- collapse_at  the 'practical' collapse of collapse_definitions; null if there was none
-- lead        collapse_at / warned_at: 10 means that the rule held at a tenth of the edits; below 1 it was late
-- verdict     early | same count | late    collapse, and the rule held before, at the same, after that edit count
--             missed       collapse, and the rule never held
--             false alarm  no collapse up to the last edit count, though the rule held; it may still come
--             quiet        neither
--             null if the probe or capability was not measured
WITH thresholds(probe, sign, threshold) AS (
    VALUES
        ('perplexity_ratio', '>', 1.05), ('perplexity_ratio', '>', 1.1),
        ('perplexity_ratio', '>', 1.5), ('perplexity_ratio', '>', 2.0),
        ('relative_update', '>', 0.1), ('relative_update', '>', 0.3), ('relative_update', '>', 1.0),
        ('locality_generated', '<', 0.9), ('locality_generated', '<', 0.7), ('locality_generated', '<', 0.5),
        ('locality_teacher_forced', '<', 0.9), ('locality_teacher_forced', '<', 0.7), ('locality_teacher_forced', '<', 0.5),
        ('reliability_generated', '<', 0.9), ('reliability_generated', '<', 0.5),
        ('repetitive', '>', 0.05), ('empty', '>', 0.05)
),
firings AS (
    SELECT
        run, trajectory, order_seed, probe, sign, threshold,
        min(edit_count) FILTER (
            CASE WHEN sign = '>' THEN coalesce(low, value) > threshold ELSE coalesce(high, value) < threshold END
        ) AS warned_at
    FROM probes_by_edit_count JOIN thresholds USING (probe)
    WHERE value IS NOT NULL
    GROUP BY run, trajectory, order_seed, probe, sign, threshold
),
collapses AS (
    SELECT run, trajectory, order_seed, collapse_at, last_good IS NOT NULL AS is_measured
    FROM collapse_definitions WHERE definition = 'practical'
)
SELECT
    run, trajectory, label, method, model, dataset, order_seed,
    format('{} {} {}', probe, sign, threshold::DOUBLE) AS rule, probe, threshold::DOUBLE AS threshold,
    warned_at, collapse_at, collapse_at / warned_at AS lead,
    CASE
        WHEN f.run IS NULL OR NOT is_measured THEN NULL
        WHEN warned_at < collapse_at THEN 'early'
        WHEN warned_at = collapse_at THEN 'same count'
        WHEN warned_at > collapse_at THEN 'late'
        WHEN collapse_at IS NOT NULL THEN 'missed'
        WHEN warned_at IS NOT NULL THEN 'false alarm'
        ELSE 'quiet'
    END AS verdict
FROM trajectories
CROSS JOIN thresholds
LEFT JOIN firings AS f USING (run, trajectory, order_seed, probe, sign, threshold)
LEFT JOIN collapses USING (run, trajectory, order_seed)
ORDER BY run, trajectory, order_seed, probe, sign = '<', CASE WHEN sign = '<' THEN -threshold ELSE threshold END
