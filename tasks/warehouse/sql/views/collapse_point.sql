-- The collapse of each trajectory: one row each, with or without a collapse.
--
-- collapse_at       the first measured edit count that meets a criterion; null if none does up to measured_up_to
-- reason            the criteria met there: capability | perplexity | empty outputs | reliability | weights
-- detail            the same with the numbers
-- capability_at, perplexity_at, empty_at, reliability_at, weights_at  the first edit count of each criterion on its own
-- planned_edit_count  the last edit count asked for; null until the trajectory has ended
-- measured_up_to    the last edit count at which anything was measured; null if nothing was
-- status, error     how the trajectory ended (see trajectories)
--
-- The true point lies between the last measured edit count before collapse_at and collapse_at itself.
WITH limits AS (
    SELECT
        -- capability: the upper 95 % bound of the mean, less chance, is below this share of the base's, less chance
        -- (an unknown chance counts as 0; no verdict if the base itself is not above chance)
        0.8 AS capability_share,
        -- perplexity: above this multiple of the base's, or not finite
        10.0 AS perplexity_multiple,
        -- empty outputs: more than this share of the generated outputs
        0.5 AS empty_share,
        -- reliability (generated): its upper 95 % bound is below this share of the best value so far
        0.5 AS reliability_share
),
means AS (
    SELECT run, trajectory, order_seed, edit_count, value, high, coalesce(chance, 0) AS chance
    FROM capability_by_edit_count WHERE task = 'mean'
),
by_capability AS (
    SELECT
        run, trajectory, order_seed, m.edit_count, 'capability' AS criterion,
        m.high - b.chance < capability_share * (b.value - b.chance) AND b.value > b.chance AS is_met,
        format('capability {:.1f} % (at most {:.1f} %), {:.1f} % before editing, chance {:.1f} %',
            100 * m.value, 100 * m.high, 100 * b.value, 100 * b.chance) AS detail
    FROM means AS m JOIN (FROM means WHERE edit_count = 0) AS b USING (run, trajectory, order_seed), limits
),
by_perplexity AS (
    SELECT
        run, trajectory, order_seed, edit_count, 'perplexity' AS criterion,
        NOT isfinite(value) OR ratio > perplexity_multiple AS is_met,
        format('perplexity {:.3g}, {:.3g} times that before editing', value, ratio) AS detail
    FROM perplexity_by_edit_count, limits
),
by_empty AS (
    SELECT
        run, trajectory, order_seed, edit_count, 'empty outputs' AS criterion, empty > empty_share AS is_met,
        format('{:.1f} % of the outputs are empty', 100 * empty) AS detail
    FROM text_health, limits
),
peaks AS (
    SELECT
        *, max(value) OVER (PARTITION BY run, trajectory, order_seed ORDER BY edit_count) AS peak
    FROM reliability_by_edit_count WHERE measure = 'reliability' AND protocol = 'generated'
),
by_reliability AS (
    SELECT
        run, trajectory, order_seed, edit_count, 'reliability' AS criterion, high < reliability_share * peak AS is_met,
        format('reliability {:.1f} % (at most {:.1f} %), best {:.1f} %', 100 * value, 100 * high, 100 * peak) AS detail
    FROM peaks, limits
),
by_weights AS (
    -- at most one turn of a trajectory: editing stops there
    SELECT
        run, trajectory, order_seed, edit_count, 'weights' AS criterion, TRUE AS is_met,
        format('weights that are not finite, after the turn of edits {} to {}', first_edit, last_edit) AS detail
    FROM diagnostics WHERE site IS NULL AND quantity = 'finite' AND value = 0
),
checks AS (
    FROM by_capability UNION ALL FROM by_perplexity UNION ALL FROM by_empty UNION ALL FROM by_reliability
    UNION ALL FROM by_weights
),
firsts AS (
    SELECT
        run, trajectory, order_seed, max(edit_count) AS measured_up_to,
        min(edit_count) FILTER (WHERE is_met) AS collapse_at,
        min(edit_count) FILTER (WHERE is_met AND criterion = 'capability') AS capability_at,
        min(edit_count) FILTER (WHERE is_met AND criterion = 'perplexity') AS perplexity_at,
        min(edit_count) FILTER (WHERE is_met AND criterion = 'empty outputs') AS empty_at,
        min(edit_count) FILTER (WHERE is_met AND criterion = 'reliability') AS reliability_at,
        min(edit_count) FILTER (WHERE is_met AND criterion = 'weights') AS weights_at
    FROM checks WHERE edit_count > 0
    GROUP BY run, trajectory, order_seed
),
reasons AS (
    SELECT
        run, trajectory, order_seed, string_agg(DISTINCT criterion, ' and ' ORDER BY criterion) AS reason,
        string_agg(detail, '; ' ORDER BY criterion, detail) AS detail
    FROM checks JOIN firsts USING (run, trajectory, order_seed)
    WHERE is_met AND edit_count = collapse_at
    GROUP BY run, trajectory, order_seed
)
SELECT
    run, trajectory, label, method, model, dataset, order_seed, collapse_at, reason, detail,
    capability_at, perplexity_at, empty_at, reliability_at, weights_at, measured_up_to, planned_edit_count, status, error
FROM trajectories
LEFT JOIN firsts USING (run, trajectory, order_seed)
LEFT JOIN reasons USING (run, trajectory, order_seed)
ORDER BY run, trajectory, order_seed
