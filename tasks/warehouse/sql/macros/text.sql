-- Scores of texts as in editing/metrics.py, so that a stored output can be scored under other protocols.

-- The whitespace of Unicode as one character class, and a text without whitespace at its ends.
CREATE OR REPLACE MACRO blanks() AS
    '[\x09-\x0d\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+';
CREATE OR REPLACE MACRO stripped(t) AS regexp_replace(t, '^' || blanks() || '|' || blanks() || '$', '', 'g');

-- Lower case as in Python (which differs for the dotted capital I), except for a capital sigma at the end of a word.
CREATE OR REPLACE MACRO lowered(t) AS lower(replace(t, 'İ', 'i̇'));

-- SQuAD's normal form: lower case, no ASCII punctuation, no English articles, single spaces. An article is a whole word:
-- each word is put between two characters that no text has, which are then removed.
CREATE OR REPLACE MACRO between_marks(t) AS regexp_replace(t, '([\p{L}\p{N}_]+)', chr(64976) || '\1' || chr(64977), 'g');
CREATE OR REPLACE MACRO without_articles(t) AS translate(
    regexp_replace(between_marks(t), chr(64976) || '(a|an|the)' || chr(64977), ' ', 'g'), chr(64976) || chr(64977), '');
CREATE OR REPLACE MACRO squad_normalized(t) AS stripped(regexp_replace(
    without_articles(translate(lowered(t), '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', '')), blanks(), ' ', 'g'));

-- Whether two texts are the same after normalization; if both are empty then, the texts themselves are compared.
CREATE OR REPLACE MACRO same_text(one, other) AS
    CASE WHEN one = other THEN true
    WHEN squad_normalized(one) = '' AND squad_normalized(other) = '' THEN lowered(stripped(one)) = lowered(stripped(other))
    ELSE squad_normalized(one) = squad_normalized(other) END;

-- Share of positions at which two lists of tokens agree; null if they are empty or differ in length.
CREATE OR REPLACE MACRO token_accuracy(greedy_ids, target_ids) AS
    CASE WHEN greedy_ids IS NULL OR target_ids IS NULL OR len(greedy_ids) <> len(target_ids) OR len(target_ids) = 0 THEN NULL
    WHEN greedy_ids = target_ids THEN 1.0
    ELSE len(list_filter(list_zip(greedy_ids, target_ids), lambda pair: pair[1] = pair[2])) / len(target_ids) END;

-- Weighted mean of the entropies, in bits, of a text's bigrams (2/3) and trigrams (4/3).
CREATE OR REPLACE MACRO words_of(t) AS regexp_extract_all(t, '[!-/:-@\[-`{-~]|[^\t-\r !-/:-@\[-`{-~]+');
CREATE OR REPLACE MACRO ngrams(words, n) AS
    list_transform(range(1, len(words) - n + 2), lambda first: array_to_string(words[first:first + n - 1], ' '));
CREATE OR REPLACE MACRO ngram_entropy(t) AS
    (2 / 3 * list_aggregate(ngrams(words_of(t), 2), 'entropy') + 4 / 3 * list_aggregate(ngrams(words_of(t), 3), 'entropy')) / 2;

-- Harmonic mean of numbers >= 0; 0 if one of them is 0.
CREATE OR REPLACE MACRO harmonic_mean(numbers) AS
    CASE WHEN list_min(numbers) = 0 THEN 0.0 ELSE len(numbers) / list_sum(list_transform(numbers, lambda number: 1 / number)) END;
-- The same of those that are not null; null if there is none.
CREATE OR REPLACE MACRO harmonic_mean_of(a, b, c, d) AS
    harmonic_mean(list_filter([a, b, c, d], lambda number: number IS NOT NULL));
