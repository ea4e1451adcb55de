-- The collapse of each trajectory: one row each, with or without a collapse.
--
-- takes             the edits that the model takes: last_good; where a search found the collapse, its own number
-- collapse_at       the first measured edit count that meets a criterion; null if none does up to measured_up_to. After a
--                   search for the collapse: the first at which its (first) definition surely holds, see collapse_search
-- last_good         the last measured edit count before that, or the last at which a search found the model surely good; 0
--                   is the pristine model
-- confidence        the probability that a search's bracket holds the collapse point; null without a search
-- reason            the criteria met at collapse_at: capability | perplexity | empty outputs | reliability | weights; after
--                   a search its definition
-- detail            the same with the numbers
-- capability_at, perplexity_at, empty_at, reliability_at, weights_at  the first edit count of each criterion on its own
-- planned_edit_count  the last edit count asked for; null until the trajectory has ended
-- measured_up_to    the last edit count at which anything was measured; null if nothing was
-- status, error     how the trajectory ended (see trajectories)
--
-- The true point lies between last_good and collapse_at.
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
good AS (
    SELECT run, trajectory, order_seed, max(edit_count) AS last_before
    FROM checks JOIN firsts USING (run, trajectory, order_seed)
    WHERE collapse_at IS NULL OR edit_count < collapse_at
    GROUP BY run, trajectory, order_seed
),
searched AS (
    FROM collapse_search WHERE rank = 1
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
    run, trajectory, t.label, t.method, model, dataset, order_seed,
    -- the pristine model is good by definition
    CASE WHEN s.run IS NOT NULL THEN s.takes WHEN f.run IS NOT NULL THEN coalesce(last_before, 0) END AS takes,
    CASE WHEN s.run IS NOT NULL THEN s.last_good WHEN f.run IS NOT NULL THEN coalesce(last_before, 0) END AS last_good,
    CASE WHEN s.run IS NOT NULL THEN s.collapse_at ELSE f.collapse_at END AS collapse_at,
    s.confidence,
    CASE WHEN s.run IS NULL THEN reason WHEN s.collapse_at IS NOT NULL THEN s.definition END AS reason,
    CASE WHEN s.run IS NULL THEN r.detail ELSE d.detail END AS detail,
    capability_at, perplexity_at, empty_at, reliability_at, weights_at, f.measured_up_to, planned_edit_count, status, error
FROM trajectories AS t
LEFT JOIN firsts AS f USING (run, trajectory, order_seed)
LEFT JOIN good USING (run, trajectory, order_seed)
LEFT JOIN reasons AS r USING (run, trajectory, order_seed)
LEFT JOIN searched AS s USING (run, trajectory, order_seed, model, dataset)
LEFT JOIN collapse_checks AS d
    ON d.run = t.run AND d.trajectory = t.trajectory AND d.order_seed = t.order_seed
    AND d.edit_count = s.collapse_at AND d.definition = s.definition
ORDER BY run, trajectory, order_seed
