-- The edits that a method takes, over the orderings (order seeds) of a run, by each definition that its search used.
--
-- definition   a definition of collapse, as in collapse_definitions
-- num_orders, num_collapsed  orderings that were searched, and those whose model has collapsed
-- lowest, median, highest  of `takes` in collapse_search; an ordering without a collapse counts with its last count
-- mean, low, high  geometric mean over the orderings with Student's 95 % interval on the logarithmic scale, which assumes
--              random orderings; null for one ordering, where one takes no edit, or where one has not collapsed
-- reason       why there is no mean or no interval
WITH logarithms AS (
    SELECT
        run, trajectory, method, model, dataset, definition, any_value(rank) AS rank,
        -- an ordering that has not ended yet has the method as its label
        coalesce(max(label) FILTER (label <> method), method) AS label,
        count(*) AS num_orders, count(collapse_at) AS num_collapsed,
        min(takes) AS lowest, median(takes) AS median, max(takes) AS highest,
        avg(ln(takes)) FILTER (takes > 0) AS middle,
        t95(count(*) - 1) * stddev_samp(ln(takes)) FILTER (takes > 0) / sqrt(count(*)) AS margin
    FROM collapse_search
    GROUP BY run, trajectory, method, model, dataset, definition
),
reasons AS (
    SELECT
        *,
        CASE WHEN num_collapsed < num_orders THEN 'an ordering has not collapsed'
            WHEN lowest = 0 THEN 'an ordering takes no edit' END AS reason
    FROM logarithms
)
SELECT
    run, trajectory, label, method, model, dataset, definition, num_orders, num_collapsed, lowest, median, highest,
    CASE WHEN reason IS NULL THEN exp(middle) END AS mean,
    CASE WHEN reason IS NULL THEN exp(middle - margin) END AS low,
    CASE WHEN reason IS NULL THEN exp(middle + margin) END AS high,
    coalesce(reason, CASE WHEN num_orders = 1 THEN 'one ordering alone has no interval' END) AS reason
FROM reasons
ORDER BY run, rank, median DESC, trajectory
