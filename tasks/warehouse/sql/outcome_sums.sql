-- The sums of outcomes on which the views are built: only counts and sums, so that they can be summed further.
-- The warehouse runs this query over the rows of a file when it writes them, and stores the result in the file's footer.
-- The view `outcome_sums` is the content of the footers, and the result of this query for files without stored sums.
--
-- probe, protocol  as in `outcomes`
-- decade      of an edit's age, edit_count - position: 0 for the last edit, 1 for ages 1-9, 2 for 10-99, ...; null
--             without an age: for other probes, the pristine model, and edits to come
-- score_reason, agreement_reason  why there is no score or agreement; null if there is one, or if no reason is stored
-- num_rows    answers; num_scores: those with a score; num_agreements: those with an agreement
-- sum_scores, sum_agreements  the sums over these
-- num_texts   generated outputs; num_empty: those of only whitespace; num_repetitive: repetitive ones (see text_health)
-- num_lengths  outputs with a number of tokens; sum_lengths: the tokens of all
-- num_endings  outputs with a finish reason; num_cut: those that hit the token limit
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
        -- 8 words have at least 15 characters, so most outputs need not be split
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
