-- Seconds and items of each stage over a whole trajectory. The trajectory `base` has the cost of measuring the pristine
-- model and of starting the engine.
SELECT trajectory, method, order_seed, stage, sum(seconds) AS seconds, sum(num_items)::BIGINT AS items
FROM costs
WHERE run = $run
GROUP BY ALL
ORDER BY trajectory, order_seed, stage
