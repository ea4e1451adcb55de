-- Up to eight edits of a run, spread over age (the first and the last among them), and the answer of every checkpoint to
-- the first prompt of each kind. Only edits whose prompt was asked at the last edit count are chosen.
WITH edited AS (
    SELECT DISTINCT position, case_id, target AS new_fact
    FROM outcomes
    WHERE run = $run AND probe = 'edit' AND protocol = 'generated' AND method <> 'none'
        AND (order_seed, edit_count) = (
            SELECT (min(order_seed), max(edit_count)) FROM outcome_sums
            WHERE run = $run AND probe = 'edit' AND protocol = 'generated' AND method <> 'none'
        )
),
ranked AS (
    SELECT *, row_number() OVER (ORDER BY position) AS rank, count(*) OVER () AS num_edits FROM edited
),
chosen AS (
    SELECT case_id, position AS edit_number, new_fact FROM ranked
    WHERE rank IN (
        1, round(num_edits ** 0.25), round(num_edits ** 0.5), round(num_edits ** 0.75),
        round(num_edits * 0.25), round(num_edits * 0.5), round(num_edits * 0.75), num_edits
    )
),
-- in another order, a generated dataset may have another new fact under the same case id
same_edit AS (
    SELECT DISTINCT order_seed, case_id FROM outcomes JOIN chosen USING (case_id)
    WHERE run = $run AND probe = 'edit' AND protocol = 'generated' AND target = new_fact
)
SELECT
    edit_number, case_id, trajectory, method, order_seed, edit_count, position, probe, prompt,
    left(target, 161) AS target, left(output, 161) AS output, score, agreement
FROM outcomes JOIN chosen USING (case_id) SEMI JOIN same_edit USING (order_seed, case_id)
WHERE run = $run AND protocol = 'generated' AND probe IN ('edit', 'rephrase', 'locality')
QUALIFY probe_index = min(probe_index) OVER (PARTITION BY case_id, probe)
ORDER BY edit_number, probe, edit_count, trajectory, order_seed
