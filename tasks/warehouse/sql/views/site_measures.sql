-- What each site of a search among sites scored: one row per site, split, measure and protocol.
--
-- site      the edited weights, e.g. 4.down_proj; null for the pristine model
-- layer     the site's layer, from 0
-- part      layer, attention, mlp, or a projection such as down_proj
-- split     validation | test: edits that did not choose the site
-- measure   as in reliability_by_edit_count (means over edits), capability (mean over the benchmarks), perplexity of the
--           corpus, seconds for editing and measuring the site, or failure
-- protocol  generated | teacher_forced | probability; null where the measure has none
-- value     mean over the items, each first averaged over the seeds; n: edits, benchmarks or corpora
-- low, high  95 % interval: Wilson's of means over edits, +- 1.96 standard errors of capability; null for other measures
-- stderr    capability: the standard error of the mean
-- chance    capability: the score of guessing, mean over the benchmarks
-- edit_count  edits made at the site; num_seeds: trainings of the site, with different seeds
-- reason    why the site has no score: its one row has the measure failure
WITH items AS (
    SELECT
        run, trajectory, any_value(label) AS label, method, model, dataset, site, layer, part, split, measure, protocol, item,
        avg(value) AS value, avg(stderr) AS stderr, any_value(chance) AS chance, max(edit_count) AS edit_count,
        count(DISTINCT order_seed) AS num_seeds, min(reason) AS reason
    FROM site_scores
    GROUP BY run, trajectory, method, model, dataset, site, layer, part, split, measure, protocol, item
),
means AS (
    SELECT
        run, trajectory, any_value(label) AS label, method, model, dataset, site, layer, part, split, measure, protocol,
        -- the seconds of editing and of measuring add up
        CASE WHEN measure = 'seconds' THEN sum(value) ELSE avg(value) END AS value,
        count(value) AS n,
        CASE WHEN measure = 'capability' AND count(stderr) = count(*) THEN sqrt(sum(stderr ** 2)) / count(*) END AS stderr,
        CASE WHEN measure = 'capability' AND count(chance) = count(*) THEN avg(chance) END AS chance,
        max(edit_count) AS edit_count, max(num_seeds) AS num_seeds, min(reason) AS reason
    FROM items
    GROUP BY run, trajectory, method, model, dataset, site, layer, part, split, measure, protocol
)
SELECT
    run, trajectory, label, method, model, dataset, site, layer, part, split, measure, protocol, edit_count, num_seeds,
    value, n,
    CASE
        WHEN measure IN ('perplexity', 'seconds', 'failure') THEN NULL
        WHEN measure = 'capability' THEN greatest(0.0, value - z95() * stderr) ELSE wilson_low(value, n)
    END AS low,
    CASE
        WHEN measure IN ('perplexity', 'seconds', 'failure') THEN NULL
        WHEN measure = 'capability' THEN least(1.0, value + z95() * stderr) ELSE wilson_high(value, n)
    END AS high,
    stderr, chance, reason
FROM means
ORDER BY run, split DESC, layer NULLS FIRST, part, measure, protocol
