-- Every comparison of a headline number with that of the baseline.
--
-- measure  as in the view history; part: the benchmark or the corpus, null for outcomes and for the mean over benchmarks
SELECT
    run, instance, baseline, trajectory, label, order_seed, edit_count,
    CASE WHEN kind = 'outcome' THEN measure ELSE kind END AS measure,
    CASE WHEN kind = 'perplexity' OR (kind = 'capability' AND measure <> 'mean') THEN measure END AS part,
    protocol, before, after, difference, low, high, n, p_adjusted, verdict, reason, "limit", failed
FROM gates
ORDER BY run, instance, trajectory, order_seed, measure, part, protocol, edit_count
