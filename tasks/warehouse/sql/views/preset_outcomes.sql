-- Every answered question with the score of each preset that asks it; preset_measures describes the measures.
--
-- position, case_id, probe, probe_index  as in `outcomes`
-- preset, measure  as in preset_measures
-- score     of the stored answer; null if the preset would have seen another answer that is not known
-- reason    why score is null
--
-- A score that `outcomes` has for the same answer is taken (it is computed as in editing/metrics.py). If it has none because
-- of other edits, the answer is scored here. Every case counts, even if a later edit gave its prompt another target: that
-- limits the scores of the paper, too.
-- A generated text is cut at the preset's first stop string. It has no score if the run ended it for a reason that the
-- preset does not have (another stop string, fewer tokens), or if the preset would have ended it sooner: a text of more
-- than 32 tokens counts only if its stop string comes within 32 bytes, as no token is shorter than a byte.
-- The pristine model's rows are those of the trajectory `base`, as in `outcomes`; preset_scores gives them to every method.
WITH limits AS (
    SELECT 32 AS most_tokens, '^[^.\n]*' AS before_stop, ['.', E'\n'] AS stops
),
asked AS (
    SELECT
        o.* RENAME (score AS stored), m.preset, m.measure, m.kind, most_tokens,
        CASE
            WHEN kind <> 'exact match' THEN NULL
            WHEN contains(output, stops[1]) OR contains(output, stops[2]) THEN regexp_extract(output, before_stop)
            ELSE output
        END AS answer,
        kind = 'exact match' AND len(list_filter(o.stop, lambda s: NOT list_contains(stops, s[1]))) > 0 AS stops_elsewhere
    FROM outcomes AS o JOIN preset_measures AS m USING (probe, protocol), limits
    WHERE probe_index = 0 OR NOT first_only
),
limited AS (
    SELECT
        *,
        CASE
            WHEN output IS NULL OR kind <> 'exact match' THEN NULL
            WHEN num_tokens > most_tokens AND (strlen(answer) >= most_tokens OR answer = output) THEN
                format('the run generated more than {} tokens', most_tokens)
            WHEN answer <> output THEN NULL
            WHEN finish_reason = 'stop' AND stop IS NULL THEN 'the run did not store where it stops'
            WHEN finish_reason = 'stop' AND stops_elsewhere THEN 'the run stops at other strings'
            WHEN finish_reason = 'length' AND coalesce(max_tokens, num_tokens) < most_tokens THEN
                format('the run generated fewer than {} tokens', most_tokens)
        END AS limit_reason
    FROM asked
),
scored AS (
    SELECT
        *,
        CASE kind
            WHEN 'exact match' THEN CASE WHEN limit_reason IS NULL THEN
                CASE WHEN answer = output AND stored IS NOT NULL THEN stored ELSE same_text(answer, target)::INT::DOUBLE END END
            WHEN 'tokens' THEN coalesce(stored, token_accuracy(greedy_ids, target_ids))
            WHEN 'agreement' THEN agreement
            WHEN 'preferred' THEN
                CASE WHEN NOT isnan(nll) AND NOT isnan(nll_other) THEN (nll / num_tokens < nll_other / num_tokens_other)::INT::DOUBLE END
            WHEN 'margin' THEN
                CASE WHEN NOT isnan(nll) AND NOT isnan(nll_other) THEN exp(-nll / num_tokens) - exp(-nll_other / num_tokens_other) END
            WHEN 'entropy' THEN ngram_entropy(output)
            WHEN 'similarity' THEN similarity
        END AS score
    FROM limited
)
SELECT
    run, trajectory, method, model, dataset, order_seed, edit_count, position, case_id, probe, probe_index,
    preset, measure, score,
    CASE WHEN score IS NULL THEN coalesce(
        limit_reason,
        CASE
            WHEN isnan(nll) OR isnan(nll_other) THEN 'the model''s likelihoods are not numbers'
            WHEN kind = 'similarity' AND output IS NOT NULL THEN 'the data gives no references'
        END,
        reason_of(reason, CASE WHEN kind = 'agreement' THEN 'agreement' ELSE 'score' END),
        'nothing is stored'
    ) END AS reason
FROM scored
