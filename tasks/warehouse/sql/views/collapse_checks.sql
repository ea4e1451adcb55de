-- Every definition of collapse at every measured edit count, so that one can see how far a number is from its limit.
--
-- definition   practical    capability's upper bound, less chance, is below 80 % of the base's, less chance
--              significant  the pooled items are answered worse than before editing (capability_change: Holm-adjusted
--                           p < 0.05) from this edit count on and at every later one. As it must hold at the last one too,
--                           looking at many edit counts raises no more false alarms than the last one alone
--              perplexity   above 1,000, or 10 times the base's, or not a number (The Butterfly Effect of Model Editing,
--                           Yang et al. 2024, calls a perplexity beyond 1,000 collapsed)
--              muted        capability can no longer be told from chance (its lower bound is not above it; no verdict if
--                           that is true of the base as well), or more than half of the outputs are empty (Should We Really Edit
--                           Language Models?, Li et al. 2024: "muting")
--              forgotten    generated reliability's upper bound is below half of its best value so far
-- is_met       whether it holds at this edit count
-- value        the number that decides: capability, the difference in it, perplexity, the lower bound of
--              capability or the share of empty outputs, reliability
-- low, high    its 95 % interval where the definition uses one, else null
-- limit        what it is compared with (in SQL: "limit"); null for significant
-- detail       the numbers in words
WITH means AS (
    SELECT run, trajectory, order_seed, edit_count, value, low, high, coalesce(chance, 0) AS chance
    FROM capability_by_edit_count WHERE task = 'mean' AND value IS NOT NULL
),
against AS (
    SELECT m.*, b.value AS base, b.low AS base_low
    FROM means AS m JOIN (FROM means WHERE edit_count = 0) AS b USING (run, trajectory, order_seed)
),
practical AS (
    SELECT
        run, trajectory, order_seed, edit_count, 'practical' AS definition,
        high - chance < practical_share() * (base - chance) AS is_met,
        value, low, high, chance + practical_share() * (base - chance) AS "limit",
        format('capability at most {:.1f} %, {:.1f} % before editing, chance {:.1f} %', 100 * high, 100 * base, 100 * chance) AS detail
    FROM against WHERE base > chance
),
worse AS (
    SELECT
        *, difference < 0 AND p_adjusted < 0.05 AS is_worse
    FROM capability_change WHERE task = 'all'
),
significant AS (
    SELECT
        run, trajectory, order_seed, edit_count, 'significant' AS definition,
        bool_and(is_worse) OVER (PARTITION BY run, trajectory, order_seed ORDER BY edit_count DESC) AS is_met,
        difference AS value,
        format('{} items lost, {} gained of {}, p {:.2g}', num_lost, num_gained, n, p_adjusted) AS detail
    FROM worse
),
perplexity_high AS (
    SELECT
        run, trajectory, order_seed, edit_count, 'perplexity' AS definition,
        NOT isfinite(value) OR value > 1000 OR coalesce(ratio > 10, false) AS is_met,
        value, least(1000, 10 * value / ratio) AS "limit",
        format('perplexity {:.3g}', value) || coalesce(format(', {:.3g} times that before editing', ratio), '') AS detail
    FROM perplexity_by_edit_count
),
at_chance AS (
    SELECT
        run, trajectory, order_seed, edit_count, 'muted' AS definition, low <= chance AS is_met,
        low AS value, chance AS "limit",
        format('capability {:.1f} % (at least {:.1f} %), chance {:.1f} %', 100 * value, 100 * low, 100 * chance) AS detail
    FROM against WHERE base_low > chance
),
empty_texts AS (
    SELECT
        run, trajectory, order_seed, edit_count, 'muted' AS definition, empty > 0.5 AS is_met,
        empty AS value, 0.5 AS "limit",
        format('{:.1f} % of the outputs are empty', 100 * empty) AS detail
    FROM text_health
),
peaks AS (
    SELECT
        *, max(value) OVER (PARTITION BY run, trajectory, order_seed ORDER BY edit_count) AS peak
    FROM reliability_by_edit_count WHERE measure = 'reliability' AND protocol = 'generated' AND value IS NOT NULL
),
forgotten AS (
    SELECT
        run, trajectory, order_seed, edit_count, 'forgotten' AS definition, high < 0.5 * peak AS is_met,
        value, low, high, 0.5 * peak AS "limit",
        format('reliability at most {:.1f} %, best {:.1f} %', 100 * high, 100 * peak) AS detail
    FROM peaks
)
FROM practical
UNION ALL BY NAME FROM significant UNION ALL BY NAME FROM perplexity_high UNION ALL BY NAME FROM at_chance
UNION ALL BY NAME FROM empty_texts UNION ALL BY NAME FROM forgotten
