-- The trials of each search for settings: one row per trial and split, averaged over the seeds.
--
-- study        digest of what determines the search's trials
-- split        validation | test
-- trial        number of the trial, from 0; null for the settings that the configuration gives
-- settings     the settings that were searched, JSON
-- state        completed | pruned (stopped at an edit count where it was below the median) | failed
-- edit_count   the last edit count that was reached
-- num_seeds    seeds that were measured; seconds: editing and measuring, of all of them
-- value        the objective: the harmonic mean of reliability, generalization, locality and capability_kept at the last
--              edit count; 0 if the trial failed, null if it was pruned
-- low, high    95 % interval of value, for the items of one seed: the measures' Wilson intervals combined by the
--              method of variance estimates recovery (Zou and Donner 2008), the measures taken as independent, each
--              with the change of the objective where it alone is at its bound
-- best         highest value of the trials of this split up to this one; null for settings that were given
-- reliability, generalization, locality  generated protocol, at the last edit count
-- capability_kept  the share of capability, less chance, that is left; perplexity_ratio: over the pristine model's
-- error        why it failed
WITH bounds AS (
    SELECT
        *,
        wilson_low(reliability, reliability_n) AS r_low, wilson_high(reliability, reliability_n) AS r_high,
        wilson_low(generalization, generalization_n) AS g_low, wilson_high(generalization, generalization_n) AS g_high,
        wilson_low(locality, locality_n) AS l_low, wilson_high(locality, locality_n) AS l_high,
        least(capability_kept, (wilson_low(capability, capability_n) - chance) / (base_capability - chance)) AS c_low,
        least(1.0, greatest(
            capability_kept, (wilson_high(capability, capability_n) - chance) / (base_capability - chance)
        )) AS c_high
    FROM trials
),
margins AS (
    SELECT
        *,
        sqrt((objective - harmonic_mean_of(r_low, generalization, locality, capability_kept)) ** 2
            + (objective - harmonic_mean_of(reliability, g_low, locality, capability_kept)) ** 2
            + (objective - harmonic_mean_of(reliability, generalization, l_low, capability_kept)) ** 2
            + (objective - harmonic_mean_of(reliability, generalization, locality, c_low)) ** 2) AS below,
        sqrt((objective - harmonic_mean_of(r_high, generalization, locality, capability_kept)) ** 2
            + (objective - harmonic_mean_of(reliability, g_high, locality, capability_kept)) ** 2
            + (objective - harmonic_mean_of(reliability, generalization, l_high, capability_kept)) ** 2
            + (objective - harmonic_mean_of(reliability, generalization, locality, c_high)) ** 2) AS above
    FROM bounds
),
by_trial AS (
    SELECT
        run, trajectory, any_value(label) AS label, method, model, dataset, study, split, trial,
        any_value(settings) AS settings, any_value(state) AS state, max(edit_count) AS edit_count,
        count(DISTINCT order_seed) AS num_seeds,
        CASE any_value(state) WHEN 'failed' THEN 0.0 WHEN 'completed' THEN avg(objective) END AS value,
        avg(below) FILTER (WHERE objective IS NOT NULL) AS below,
        avg(above) FILTER (WHERE objective IS NOT NULL) AS above,
        avg(reliability) FILTER (WHERE objective IS NOT NULL) AS reliability,
        avg(generalization) FILTER (WHERE objective IS NOT NULL) AS generalization,
        avg(locality) FILTER (WHERE objective IS NOT NULL) AS locality,
        avg(capability_kept) FILTER (WHERE objective IS NOT NULL) AS capability_kept,
        avg(perplexity_ratio) FILTER (WHERE objective IS NOT NULL) AS perplexity_ratio,
        sum(seconds) AS seconds, any_value(error) AS error
    FROM margins
    GROUP BY run, trajectory, method, model, dataset, study, split, trial
)
SELECT
    run, trajectory, label, method, model, dataset, study, split, trial, settings, state, edit_count, num_seeds, value,
    CASE WHEN state = 'completed' THEN greatest(0.0, value - below) END AS low,
    CASE WHEN state = 'completed' THEN least(1.0, value + above) END AS high,
    CASE WHEN trial IS NOT NULL THEN max(CASE WHEN trial IS NOT NULL THEN value END) OVER (
        PARTITION BY run, trajectory, study, split ORDER BY trial NULLS FIRST
    ) END AS best,
    reliability, generalization, locality, capability_kept, perplexity_ratio, seconds, error
FROM by_trial
ORDER BY run, trajectory, study, split DESC, trial NULLS FIRST
