-- The sums of outcomes that the views are made of: counts and sums alone, so that sums of sums are sums as well.
-- Not a view of its own: the warehouse asks this of a file's rows when it writes them and keeps the answer in the
-- file's footer; the view `outcome_sums` is what the footers say, and this query over the files whose footer says nothing.
--
-- decade      of an edit's age, edit_count - position: 0 for the last edit, 1 for ages 1-9, 2 for 10-99, ...; null for
--             what has no age: other probes, the pristine model, edits to come
-- score_reason, agreement_reason  why there is no score or agreement; null where there is one, or where nothing is said
-- num_texts   generated outputs; of these num_empty have nothing but blanks, num_repetitive are repetitive (see
--             text_health), num_lengths have a number of tokens, num_endings say why they ended, num_cut: at the limit
WITH judged AS (
    SELECT
        run, trajectory, model, method, dataset, order_seed, edit_count, probe, protocol, score, agreement,
        CASE WHEN probe = 'edit' AND method <> 'none' AND position <= edit_count THEN
            CASE WHEN edit_count = position THEN 0 ELSE 1 + floor(log10(edit_count - position)) END
        END::BIGINT AS decade,
        CASE WHEN score IS NULL THEN reason_of(reason, 'score') END AS score_reason,
        CASE WHEN agreement IS NULL THEN reason_of(reason, 'agreement') END AS agreement_reason,
        CASE WHEN protocol = 'generated' THEN output END AS text,
        CASE WHEN text IS NOT NULL THEN num_tokens END AS length,
        CASE WHEN text IS NOT NULL THEN finish_reason END AS ending,
        trim(text, E' \n\r\t') = '' AS is_empty,
        -- 8 words take 15 characters at least: most outputs are told apart without being split
        CASE WHEN length(text) < 15 THEN [] ELSE string_split_regex(lower(trim(text, E' \n\r\t')), '\s+') END AS words
    FROM outcomes
)
SELECT
    run, trajectory, model, method, dataset, order_seed, edit_count, probe, protocol, decade, score_reason, agreement_reason,
    count(*) AS num_rows,
    count(score) AS num_scores, sum(score) AS sum_scores,
    count(agreement) AS num_agreements, sum(agreement) AS sum_agreements,
    count(text) AS num_texts, count(*) FILTER (is_empty) AS num_empty,
    count(*) FILTER (
        len(words) >= 8 AND 2 * list_max(map_values(list_aggregate(words, 'histogram'))) > len(words)
    ) AS num_repetitive,
    count(length) AS num_lengths, sum(length)::BIGINT AS sum_lengths,
    count(ending) AS num_endings, count(*) FILTER (ending = 'length') AS num_cut
FROM judged
GROUP BY ALL
