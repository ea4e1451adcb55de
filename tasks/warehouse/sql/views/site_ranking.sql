-- The sites of a search among sites, the best first: one row per site, split and protocol.
--
-- site      the edited weights, e.g. 4.down_proj; layer, part: its two halves
-- split     validation: by these edits sites are ranked; test: the same of other edits, for the sites measured there
-- protocol  generated | teacher_forced | probability
-- rank      1 is the best of its split and protocol; proposed: the best on validation edits
-- score     mean of reliability, generalization, locality and capability_kept, of those that the run measures
-- low, high  95 % interval of score, see below
-- behind    score less that of the split's best site; behind_low, behind_high: 95 % interval, paired by edits
-- reliability, generalization, locality  means over edits under the protocol
-- capability_kept  (capability - chance) / (the pristine model's - chance), at most 1 and at least 0; an unknown chance is 0
-- perplexity_ratio  perplexity over the pristine model's
-- seconds   for editing and measuring the site, mean over the seeds
-- edit_count  edits made at the site; num_seeds: trainings of the site, with different seeds
-- reason    why the site has no score
--
-- The intervals are by the delta method with edits as independent units, since the prompts of an edit go together. Two edits
-- that are half a point away are added to the variance, so it is not 0 where all edits agree. The best of many sites is
-- chosen for its score, so its score on validation edits is too good on average; that on test edits is not.
WITH edits AS (
    SELECT
        run, trajectory, model, dataset, split, protocol, measure, item, avg(value) AS value
    FROM site_scores
    WHERE measure IN ('reliability', 'generalization', 'locality') AND value IS NOT NULL AND method <> 'none'
    GROUP BY run, trajectory, model, dataset, split, protocol, measure, item
),
pristine AS (
    SELECT
        run, model, dataset, split,
        max(value) FILTER (measure = 'capability') AS capability,
        coalesce(max(chance) FILTER (measure = 'capability'), 0) AS chance,
        max(value) FILTER (measure = 'perplexity') AS perplexity
    FROM site_measures WHERE method = 'none'
    GROUP BY run, model, dataset, split
),
measured AS (
    SELECT
        run, trajectory, any_value(m.label) AS label, m.method, model, dataset, m.site, m.layer, m.part, split,
        max(m.edit_count) AS edit_count, max(m.num_seeds) AS num_seeds, any_value(m.reason) AS reason,
        (max(m.value) FILTER (m.measure = 'capability') - any_value(p.chance))
            / nullif(any_value(p.capability) - any_value(p.chance), 0) AS kept,
        CASE WHEN kept IS NOT NULL THEN greatest(0.0, least(1.0, kept)) END AS capability_kept,
        max(m.stderr) FILTER (m.measure = 'capability')
            / nullif(any_value(p.capability) - any_value(p.chance), 0) AS kept_stderr,
        max(m.value) FILTER (m.measure = 'perplexity') / any_value(p.perplexity) AS perplexity_ratio,
        max(m.value) FILTER (m.measure = 'seconds') AS seconds
    FROM site_measures AS m LEFT JOIN pristine AS p USING (run, model, dataset, split)
    WHERE m.method <> 'none'
    GROUP BY run, trajectory, m.method, model, dataset, m.site, m.layer, m.part, split
),
means AS (
    SELECT run, trajectory, model, dataset, split, protocol, measure, avg(value) AS mean, count(*) AS n
    FROM edits
    GROUP BY run, trajectory, model, dataset, split, protocol, measure
),
scored AS (
    SELECT
        run, trajectory, model, dataset, split, m.protocol,
        max(mean) FILTER (measure = 'reliability') AS reliability,
        max(mean) FILTER (measure = 'generalization') AS generalization,
        max(mean) FILTER (measure = 'locality') AS locality,
        count(*) + (any_value(s.capability_kept) IS NOT NULL)::INTEGER AS num_measures,
        (sum(mean) + coalesce(any_value(s.capability_kept), 0)) / num_measures AS score,
        coalesce(any_value(s.kept_stderr), 0) / num_measures AS stderr_of_capability, max(n) AS num_edits
    FROM means AS m JOIN measured AS s USING (run, trajectory, model, dataset, split)
    GROUP BY run, trajectory, model, dataset, split, m.protocol
),
-- each edit's part of the score's deviation, times the number of edits
parts AS (
    SELECT
        run, trajectory, model, dataset, split, protocol, e.item,
        sum((e.value - m.mean) * s.num_edits / m.n) / any_value(s.num_measures) AS residual
    FROM edits AS e
    JOIN means AS m USING (run, trajectory, model, dataset, split, protocol, measure)
    JOIN scored AS s USING (run, trajectory, model, dataset, split, protocol)
    GROUP BY run, trajectory, model, dataset, split, protocol, e.item
),
errors AS (
    SELECT
        run, trajectory, model, dataset, split, protocol,
        sqrt((sum(residual ** 2) + 0.5) / (count(*) * (count(*) + 2))) AS stderr_of_edits
    FROM parts
    GROUP BY run, trajectory, model, dataset, split, protocol
),
best AS (
    SELECT * EXCLUDE (position) FROM (
        SELECT *, row_number() OVER (PARTITION BY run, model, dataset, split, protocol ORDER BY score DESC, trajectory) AS position
        FROM scored
    )
    WHERE position = 1
),
differences AS (
    SELECT
        run, p.trajectory, model, dataset, split, protocol,
        sqrt((sum((p.residual - q.residual) ** 2) + 0.5) / (count(*) * (count(*) + 2))) AS stderr_of_edits
    FROM parts AS p
    JOIN best AS b USING (run, model, dataset, split, protocol)
    JOIN parts AS q
        ON q.run = p.run AND q.model = p.model AND q.dataset = p.dataset AND q.split = p.split AND q.protocol = p.protocol
        AND q.trajectory = b.trajectory AND q.item = p.item
    GROUP BY run, p.trajectory, model, dataset, split, protocol
),
ranked AS (
    SELECT
        run, trajectory, m.label, m.method, model, dataset, m.site, m.layer, m.part, split, s.protocol, m.edit_count, m.num_seeds,
        s.score, s.score - b.score AS behind,
        sqrt(e.stderr_of_edits ** 2 + s.stderr_of_capability ** 2) AS stderr,
        sqrt(d.stderr_of_edits ** 2 + s.stderr_of_capability ** 2 + b.stderr_of_capability ** 2) AS stderr_behind,
        s.reliability, s.generalization, s.locality, m.capability_kept, m.perplexity_ratio, m.seconds, m.reason,
        b.trajectory = trajectory AS is_best,
        row_number() OVER (
            PARTITION BY run, model, dataset, split, s.protocol ORDER BY s.score DESC NULLS LAST, trajectory
        ) AS rank
    FROM measured AS m
    LEFT JOIN scored AS s USING (run, trajectory, model, dataset, split)
    LEFT JOIN errors AS e USING (run, trajectory, model, dataset, split, protocol)
    LEFT JOIN best AS b USING (run, model, dataset, split, protocol)
    LEFT JOIN differences AS d USING (run, trajectory, model, dataset, split, protocol)
)
SELECT
    run, trajectory, label, method, model, dataset, site, layer, part, split, protocol, edit_count, num_seeds,
    rank, rank = 1 AND split = 'validation' AND score IS NOT NULL AS proposed,
    score, greatest(0.0, score - z95() * stderr) AS low, least(1.0, score + z95() * stderr) AS high,
    behind, CASE WHEN is_best THEN 0.0 ELSE behind - z95() * stderr_behind END AS behind_low,
    CASE WHEN is_best THEN 0.0 ELSE behind + z95() * stderr_behind END AS behind_high,
    reliability, generalization, locality, capability_kept, perplexity_ratio, seconds, reason
FROM ranked
ORDER BY run, split DESC, protocol, rank
