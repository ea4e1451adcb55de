-- For each trajectory: the last measured edit count before its collapse, and how well edits were learned there.
WITH learned AS (
    SELECT run, trajectory, order_seed, edit_count, value AS reliability, low, high, n
    FROM {{ source('overedit', 'reliability_by_edit_count') }}
    WHERE measure = 'reliability' AND protocol = 'generated'
),
good AS (
    SELECT
        run, trajectory, order_seed, b.label, b.model, b.dataset, b.collapse_at, b.collapse_reason,
        max(l.edit_count) AS good_up_to
    FROM {{ source('overedit', 'leaderboard') }} AS b
    JOIN learned AS l USING (run, trajectory, order_seed)
    WHERE b.collapse_at IS NULL OR l.edit_count < b.collapse_at
    GROUP BY ALL
)
SELECT g.*, l.reliability, l.low, l.high, l.n
FROM good AS g
JOIN learned AS l
    ON l.run = g.run AND l.trajectory = g.trajectory AND l.order_seed = g.order_seed AND l.edit_count = g.good_up_to
ORDER BY g.run, g.good_up_to DESC, l.reliability DESC
