-- The savings and the misses of `capability.when: gated` for several gate ratios, computed from the rows of a run.
--
-- A checkpoint has a level: its perplexity over the pristine model's, in steps of the gate ratio (see tasks/capability/gating.py).
-- Capability is evaluated if the level differs from that of the checkpoint before, at edit count 0, and at the last one. A
-- skipped checkpoint has therefore the level of the last evaluated one.
--
-- gate_ratio    as in the configuration; is_own: the run itself was gated, with this ratio
-- num_counts    edit counts > 0 with perplexity; num_skipped: those the gate skips; saving: num_skipped / num_counts
-- num_measured  edit counts > 0 at which the run has capability: a gated run saved num_counts - num_measured evaluations.
--               A trajectory without any has no rows
-- num_misses    skipped edit counts at which capability differs from that at the last evaluated one: by the paired 95 %
--               interval over the items of all tasks, or, without items, if the mean is outside the other's interval.
--               One in twenty differs by chance. Null if a skipped edit count was not measured
-- largest_miss  the largest of these differences, of items or means; null without one
-- collapse_at, collapse_at_gated  the practical collapse (see collapse_definitions) over all measured edit counts, and over
--               those that the gate evaluates; null without collapse
WITH losses AS (
    SELECT
        run, trajectory, order_seed, model, dataset, method, edit_count,
        sum(nll) / sum(num_tokens) AS mean_nll
    FROM perplexity
    WHERE nll IS NOT NULL AND num_tokens > 0
    GROUP BY ALL
),
moved AS (
    SELECT a.*, b.mean_nll AS base_nll
    FROM losses AS a JOIN (FROM losses WHERE method = 'none') AS b USING (run, order_seed, model, dataset)
    WHERE a.method <> 'none'
),
own AS (
    SELECT DISTINCT run, trajectory, order_seed, (config ->> '$.capability.gate_ratio')::DOUBLE AS gate_ratio
    FROM runs
    WHERE json_valid(config) AND config ->> '$.capability.when' = 'gated'
),
ratios AS (
    SELECT run, trajectory, order_seed, gate_ratio, bool_or(is_own) AS is_own
    FROM (
        SELECT run, trajectory, order_seed, unnest([1.01, 1.02, 1.05, 1.1, 1.25, 1.5, 2.0])::DOUBLE AS gate_ratio, false AS is_own
        FROM trajectories
        UNION ALL
        SELECT *, true FROM own
    )
    GROUP BY ALL
),
levels AS (
    SELECT
        *, gate_level(mean_nll, base_nll, gate_ratio) AS level,
        -- not lag with a default, which DuckDB 1.4 cannot read from a database that a newer one wrote
        CASE WHEN row_number() OVER counts = 1 THEN gate_level(base_nll, base_nll, gate_ratio)
        ELSE lag(gate_level(mean_nll, base_nll, gate_ratio)) OVER counts END AS level_before,
        row_number() OVER counts = count(*) OVER (PARTITION BY run, trajectory, order_seed, gate_ratio) AS is_last
    FROM moved JOIN ratios USING (run, trajectory, order_seed)
    WINDOW counts AS (PARTITION BY run, trajectory, order_seed, gate_ratio ORDER BY edit_count)
),
gated AS (
    SELECT
        * EXCLUDE (level, level_before, is_last), is_last OR level IS DISTINCT FROM level_before AS is_due,
        coalesce(max(CASE WHEN is_due THEN edit_count END) OVER (
            PARTITION BY run, trajectory, order_seed, gate_ratio ORDER BY edit_count
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ), 0) AS evaluated_at
    FROM levels
),
means AS (
    SELECT run, trajectory, order_seed, edit_count, value, low, high, coalesce(chance, 0) AS chance
    FROM capability_by_edit_count WHERE task = 'mean' AND value IS NOT NULL
),
collapsed AS (
    SELECT run, trajectory, order_seed, m.edit_count
    FROM means AS m JOIN (FROM means WHERE edit_count = 0) AS b USING (run, trajectory, order_seed)
    WHERE m.edit_count > 0 AND b.value > b.chance AND m.high - b.chance < practical_share() * (b.value - b.chance)
),
headlines AS (
    SELECT DISTINCT run, model, dataset, task, metric FROM capability WHERE main
),
-- materialized: otherwise DuckDB joins all items with one another before it filters them
items AS MATERIALIZED (
    SELECT
        run, order_seed, edit_count, model, dataset, task, doc_id, metric, value,
        CASE WHEN method <> 'none' THEN trajectory END AS owner  -- null for the pristine model, which every trajectory is compared with
    FROM capability_samples SEMI JOIN headlines USING (run, model, dataset, task, metric)
    WHERE isfinite(value)
),
asked AS (
    SELECT DISTINCT
        run, trajectory, order_seed, model, dataset, edit_count, evaluated_at,
        CASE WHEN evaluated_at > 0 THEN trajectory END AS owner
    FROM gated WHERE NOT is_due
),
skipped AS MATERIALIZED (
    SELECT asked.*, task, doc_id, metric, value
    FROM asked JOIN items AS i
        ON i.run = asked.run AND i.owner = asked.trajectory AND i.order_seed = asked.order_seed
            AND i.model = asked.model AND i.dataset = asked.dataset AND i.edit_count = asked.edit_count
),
changes AS (
    SELECT
        s.run, s.trajectory, s.order_seed, s.edit_count, s.evaluated_at,
        count(*) AS n, sum(s.value - i.value) AS change, sum((s.value - i.value) ** 2) AS squares
    FROM skipped AS s JOIN items AS i
        ON i.run = s.run AND i.owner IS NOT DISTINCT FROM s.owner AND i.order_seed = s.order_seed AND i.model = s.model
            AND i.dataset = s.dataset AND i.edit_count = s.evaluated_at AND i.task = s.task AND i.doc_id = s.doc_id
            AND i.metric = s.metric
    GROUP BY ALL
),
judged AS (
    SELECT
        g.*, m.value IS NOT NULL AS is_measured,
        coalesce(
            paired_low(change, squares, n) > 0 OR paired_high(change, squares, n) < 0, m.value < e.low OR m.value > e.high
        ) AS is_miss,
        abs(coalesce(change / n, m.value - e.value)) AS size
    FROM gated AS g
    LEFT JOIN means AS m USING (run, trajectory, order_seed, edit_count)
    LEFT JOIN means AS e ON e.run = g.run AND e.trajectory = g.trajectory AND e.order_seed = g.order_seed
        AND e.edit_count = g.evaluated_at
    LEFT JOIN changes AS c ON c.run = g.run AND c.trajectory = g.trajectory AND c.order_seed = g.order_seed
        AND c.edit_count = g.edit_count AND c.evaluated_at = g.evaluated_at
),
counted AS (
    SELECT
        run, trajectory, order_seed, gate_ratio, any_value(is_own) AS is_own, count(*) AS num_counts,
        count(*) FILTER (NOT is_due) AS num_skipped, count(*) FILTER (is_measured) AS num_measured,
        count(*) FILTER (NOT is_due AND is_miss) AS num_known_misses,
        count(*) FILTER (NOT is_due AND is_miss IS NULL) AS num_unknown,
        max(size) FILTER (NOT is_due AND is_miss) AS largest_miss,
        min(c.edit_count) AS collapse_at, min(c.edit_count) FILTER (is_due) AS collapse_at_gated
    FROM judged AS j LEFT JOIN collapsed AS c USING (run, trajectory, order_seed, edit_count)
    GROUP BY run, trajectory, order_seed, gate_ratio
)
SELECT
    run, trajectory, label, method, model, dataset, order_seed, gate_ratio, is_own, num_counts, num_skipped,
    num_skipped / num_counts AS saving, num_measured,
    CASE WHEN num_unknown = 0 THEN num_known_misses END AS num_misses, largest_miss, collapse_at, collapse_at_gated
FROM counted JOIN trajectories USING (run, trajectory, order_seed)
WHERE num_measured > 0
ORDER BY run, trajectory, order_seed, gate_ratio
