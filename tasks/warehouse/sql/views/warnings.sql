-- Warnings where a result will mislead: one row per trajectory and kind, none where there is nothing to warn of.
--
-- kind        no effect  reliability is 0 at the first measured edit count
--             unmoved    edits whose target could not move: what the method writes does not reach the place at which the
--                        answer is predicted, or its change of the target is exactly 0
--             dropped    edits that the method left out: their loss was below its threshold before the first step
-- edit_count  the edit count at which it was found; for unmoved and dropped the last one, with all edits up to there
-- number, total  the edits that the warning is about, and all edits applied; the difference are the edits that count as edited
-- text        the warning in words
WITH firsts AS (
    SELECT run, trajectory, order_seed, protocol, edit_count, value, n
    FROM reliability_by_edit_count WHERE measure = 'reliability' AND edit_count > 0 AND n > 0
    QUALIFY edit_count = min(edit_count) OVER (PARTITION BY run, trajectory, order_seed)
),
without_effect AS (
    SELECT
        run, trajectory, order_seed, edit_count, 'no effect' AS kind, max(n)::BIGINT AS number, edit_count AS total,
        format(
            'reliability is 0 ({}) at {} edit{}, the first edit count that was measured: check the settings of the method',
            string_agg(replace(protocol, '_', '-'), ', ' ORDER BY protocol), edit_count, CASE WHEN edit_count > 1 THEN 's' ELSE '' END
        ) AS text
    FROM firsts WHERE value = 0
    GROUP BY run, trajectory, order_seed, edit_count
),
turns AS (
    SELECT run, trajectory, order_seed, quantity, first_edit, last_edit, value, on_branch
    FROM diagnostics_by_turn WHERE site IS NULL AND quantity IN ('unmoved', 'dropped')
    -- a turn on a branch was not continued from, unless nothing came after it
    QUALIFY on_branch IS NOT TRUE OR last_edit = max(last_edit) OVER (PARTITION BY run, trajectory, order_seed)
),
counted AS (
    SELECT
        run, trajectory, order_seed, max(last_edit) AS edit_count, quantity AS kind, sum(value)::BIGINT AS number,
        sum(last_edit - first_edit + 1)::BIGINT AS total
    FROM turns GROUP BY run, trajectory, order_seed, quantity HAVING sum(value) > 0
),
found AS (
    FROM without_effect
    UNION ALL BY NAME
    SELECT
        *, format(CASE kind
            WHEN 'unmoved' THEN '{} of {} edits ({:.3g} %) could not move the answer and count as unmoved, not as edited'
            ELSE '{} of {} edits ({:.3g} %) were left out by the method: their loss was below its threshold before the first step'
        END, number, total, 100 * number / total) AS text
    FROM counted
)
SELECT
    run, trajectory, label, method, model, dataset, order_seed, f.edit_count, kind, number, total, text
FROM found AS f JOIN trajectories USING (run, trajectory, order_seed)
ORDER BY run, trajectory, order_seed, f.edit_count, kind
