-- The measures of each preset, i.e. of the protocol of a paper (see tasks/evaluation/paper_protocols.py).
--
-- preset    the paper's protocol; measure: its name there
-- kind      exact match   the text up to the preset's stop string is the target (see preset_outcomes)
--           tokens        share of the target's tokens that are the model's own choice, teacher-forced
--           agreement     share of positions with the pristine model's token, teacher-forced
--           preferred     1 where the right answer has the lower mean NLL per token, else 0
--           margin        e^-NLL of the right answer less e^-NLL of the other, mean NLLs per token
--           entropy       n-gram entropy of a longer text, in bits
--           similarity    TF-IDF cosine similarity of a longer text with the case's references
--           harmonic mean, mean  of measures of the same preset (see preset_scores)
--           perplexity, perplexity ratio  mean over texts of each text's own; over the pristine model's
--           capability    the scores of lm-eval; preset_scores has a further measure for each task
-- probe, protocol  the prompts that it is measured on; null for measures without prompts of a case
-- first_only       whether only the first prompt of the probe counts
-- unit             share (magnitudes: a difference of two, from -1 to 1) | bits | perplexity (its ratio too)
SELECT * FROM (
    VALUES
        ('wild', 'reliability', 'exact match', 'edit', 'generated', true, 'share'),
        ('wild', 'generalization', 'exact match', 'rephrase', 'generated', true, 'share'),
        ('ultraedit', 'efficacy', 'tokens', 'edit', 'teacher_forced', true, 'share'),
        ('ultraedit', 'generalization', 'tokens', 'rephrase', 'teacher_forced', true, 'share'),
        ('ultraedit', 'specificity', 'tokens', 'locality', 'teacher_forced', true, 'share'),
        ('counterfact', 'efficacy_score', 'preferred', 'edit', 'probability', false, 'share'),
        ('counterfact', 'efficacy_magnitude', 'margin', 'edit', 'probability', false, 'share'),
        ('counterfact', 'paraphrase_score', 'preferred', 'rephrase', 'probability', false, 'share'),
        ('counterfact', 'paraphrase_magnitude', 'margin', 'rephrase', 'probability', false, 'share'),
        ('counterfact', 'neighbourhood_score', 'preferred', 'locality', 'probability', false, 'share'),
        ('counterfact', 'neighbourhood_magnitude', 'margin', 'locality', 'probability', false, 'share'),
        ('counterfact', 'score', 'harmonic mean', NULL, NULL, NULL, 'share'),
        ('counterfact', 'ngram_entropy', 'entropy', 'text', 'generated', false, 'bits'),
        ('counterfact', 'reference_similarity', 'similarity', 'text', 'generated', false, 'share'),
        ('wise', 'reliability', 'tokens', 'edit', 'teacher_forced', true, 'share'),
        ('wise', 'generalization', 'tokens', 'rephrase', 'teacher_forced', true, 'share'),
        ('wise', 'locality', 'agreement', 'locality', 'teacher_forced', true, 'share'),
        ('wise', 'average', 'mean', NULL, NULL, NULL, 'share'),
        ('should-we-edit', 'mean', 'capability', NULL, NULL, NULL, 'share'),
        ('butterfly', 'perplexity', 'perplexity', NULL, NULL, NULL, 'perplexity'),
        ('butterfly', 'perplexity_ratio', 'perplexity ratio', NULL, NULL, NULL, 'perplexity')
) AS measures(preset, measure, kind, probe, protocol, first_only, unit)
