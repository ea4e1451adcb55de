"""What a comparison of two runs asks the warehouse: pairs of answers to the same question, and each run's own points.

`names` says which trajectories stand beside each other: run, trajectory, order_seed -> name.
"""

from __future__ import annotations

from collections.abc import Mapping

from overedit.tasks.warehouse.views import literal

OUTCOMES = """
WITH asked AS (
    SELECT
        side, name, edit_count, probe, probe_index, case_id, prompt, target,
        CASE WHEN probe = 'locality' THEN agreement ELSE score END AS value
    FROM outcomes JOIN names USING (run, trajectory, order_seed)
    WHERE protocol = $protocol AND value IS NOT NULL
)
SELECT
    name, edit_count, probe AS measure, count(*) AS n, avg(a.value) AS first, avg(b.value) AS second,
    sum(b.value - a.value) AS changes, sum((b.value - a.value) ** 2) AS squares, changes / n AS difference,
    paired_low(changes, squares, n) AS low, paired_high(changes, squares, n) AS high,
    sign_test(count(*) FILTER (b.value < a.value), count(*) FILTER (b.value > a.value)) AS p_value
FROM (FROM asked WHERE side = 1) AS a JOIN (FROM asked WHERE side = 2) AS b
    USING (name, edit_count, probe, probe_index, case_id, prompt)
WHERE a.target IS NOT DISTINCT FROM b.target
GROUP BY name, edit_count, probe
"""
"""Answers to the same prompt of the same case with the same target."""

ITEMS = """
WITH headlines AS (
    SELECT DISTINCT run, task, metric FROM capability WHERE main
),
answered AS (
    SELECT side, name, edit_count, task, doc_id, metric, target, value
    FROM capability_samples
    JOIN headlines USING (run, task, metric)
    JOIN names USING (run, trajectory, order_seed)
    WHERE isfinite(value)
)
SELECT
    name, edit_count, coalesce(task, 'mean') AS measure, count(*) AS n, avg(a.value) AS first, avg(b.value) AS second,
    sum(b.value - a.value) AS changes, sum((b.value - a.value) ** 2) AS squares, changes / n AS difference,
    paired_low(changes, squares, n) AS low, paired_high(changes, squares, n) AS high,
    sign_test(count(*) FILTER (b.value < a.value), count(*) FILTER (b.value > a.value)) AS p_value
FROM (FROM answered WHERE side = 1) AS a JOIN (FROM answered WHERE side = 2) AS b
    USING (name, edit_count, task, doc_id, metric)
WHERE a.target IS NOT DISTINCT FROM b.target
GROUP BY GROUPING SETS ((name, edit_count, task), (name, edit_count))
"""
"""General benchmarks' items that both answered; of all tasks' items together, as `mean`, only n and p are of use."""

TEXTS = """
WITH read AS (
    SELECT side, name, edit_count, corpus, text_id, nll, num_tokens
    FROM perplexity JOIN names USING (run, trajectory, order_seed)
    WHERE isfinite(nll)
),
pairs AS (
    SELECT name, edit_count, corpus, num_tokens, a.nll AS first, b.nll AS second, b.nll - a.nll AS change
    FROM (FROM read WHERE side = 1) AS a JOIN (FROM read WHERE side = 2) AS b
        USING (name, edit_count, corpus, text_id, num_tokens)
)
SELECT
    name, edit_count, corpus AS measure, count(*) AS n, exp(sum(first) / sum(num_tokens)) AS first,
    exp(sum(second) / sum(num_tokens)) AS second, sum(change) / sum(num_tokens) AS mean_change,
    sum(change ** 2) - 2 * mean_change * sum(change * num_tokens) + mean_change ** 2 * sum(num_tokens ** 2) AS squares,
    CASE WHEN n > 1 THEN sqrt(greatest(0, squares) * n / (n - 1)) / sum(num_tokens) END AS stderr,
    exp(mean_change) AS difference, exp(mean_change - z95() * stderr) AS low, exp(mean_change + z95() * stderr) AS high,
    sign_test(count(*) FILTER (change < 0), count(*) FILTER (change > 0)) AS p_value
FROM pairs
GROUP BY name, edit_count, corpus
"""
"""Texts that both read: perplexities, and as their difference their ratio (as in `perplexity_by_edit_count`)."""

POINTS = """
SELECT side, name, edit_count, 'outcome' AS kind, measure, value, low, high, n
FROM reliability_by_edit_count JOIN names USING (run, trajectory, order_seed)
WHERE protocol = $protocol AND edit_count > 0 AND measure <> 'locality_gold'
UNION ALL
SELECT side, name, edit_count, 'capability', task, value, low, high, n
FROM capability_by_edit_count JOIN names USING (run, trajectory, order_seed)
WHERE edit_count > 0
UNION ALL
SELECT side, name, edit_count, 'perplexity', corpus, value, low, high, n
FROM perplexity_by_edit_count JOIN names USING (run, trajectory, order_seed)
WHERE edit_count > 0
"""
"""Each run's own means, as its report has them."""


def with_names(sql: str, names: Mapping[tuple[int, str, str, int], str]) -> str:
    """A query in front of which `names` is defined: (side, run, trajectory, order seed) -> name."""
    rows = ", ".join(
        f"({side}, {literal(run)}, {literal(trajectory)}, {seed}, {literal(name)})"
        for (side, run, trajectory, seed), name in names.items()
    )
    defined = f"names(side, run, trajectory, order_seed, name) AS (VALUES {rows})"
    query = sql.strip()
    return f"WITH {defined}, {query.removeprefix('WITH ')}" if query.startswith("WITH ") else f"WITH {defined} {query}"
