-- Every comparison of a headline number with that of an accepted instance.
SELECT
    run, instance, baseline, trajectory, label, order_seed, edit_count, measure, protocol, before, after, difference,
    low, high, n, p_adjusted, verdict, reason, "limit", failed
FROM gates
ORDER BY run, instance, trajectory, order_seed, measure, protocol, edit_count
