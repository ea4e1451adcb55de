-- Statistics that several views use. They are not in common.sql, because the sums in the footers depend on its text.

-- 95 % interval of the mean change of n pairs whose values lie in [0, 1], by the sums of the changes and of their squares
-- (Agresti and Min 2005, for right and wrong): a normal interval with two more pairs, of which half a pair is lost, half a
-- pair gained and one unchanged. Its width is not 0 if nothing changed; it is cut at -1 and 1, and null without pairs.
CREATE OR REPLACE MACRO paired_middle(changes, n) AS changes / (n + 2);
CREATE OR REPLACE MACRO paired_margin(changes, squares, n) AS
    z95() * sqrt(greatest(0.0, (squares + 1) / (n + 2) - paired_middle(changes, n) ** 2) / (n + 2));
CREATE OR REPLACE MACRO paired_low(changes, squares, n) AS
    CASE WHEN n > 0 THEN greatest(-1.0, paired_middle(changes, n) - paired_margin(changes, squares, n)) END;
CREATE OR REPLACE MACRO paired_high(changes, squares, n) AS
    CASE WHEN n > 0 THEN least(1.0, paired_middle(changes, n) + paired_margin(changes, squares, n)) END;

-- Two-sided exact sign test of `lost` against `gained` pairs; for right and wrong it is McNemar's exact test. Twice the
-- smaller tail of a binomial with p = 1/2, at most 1; 1 if nothing changed. Values below 1e-300 may be 0.
CREATE OR REPLACE MACRO sign_test(lost, gained) AS least(1.0, 2 * list_sum(list_transform(
    range(0, least(lost, gained)::BIGINT + 1),
    lambda k: exp(lgamma(lost + gained + 1) - lgamma(k + 1) - lgamma(lost + gained - k + 1) - (lost + gained) * ln(2))
)));

-- 97.5 % point of Student's t: the table up to 30 degrees of freedom, then its expansion (Abramowitz and Stegun 26.7.5),
-- whose error is then less than 1e-5. Null without a degree of freedom.
CREATE OR REPLACE MACRO t95(df) AS CASE
    WHEN df <= 0 THEN NULL
    WHEN df <= 30 THEN [
        12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139,
        2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963,
        2.079614, 2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831, 2.048407, 2.045230, 2.042272
    ][df::INTEGER]
    ELSE z95() + (z95() ** 3 + z95()) / (4 * df) + (5 * z95() ** 5 + 16 * z95() ** 3 + 3 * z95()) / (96 * df ** 2)
        + (3 * z95() ** 7 + 19 * z95() ** 5 + 17 * z95() ** 3 - 15 * z95()) / (384 * df ** 3)
END;

-- Practical collapse, as in collapse_point: the upper bound of capability less chance is below this share of the base's.
CREATE OR REPLACE MACRO practical_share() AS 0.8;

-- The level of a checkpoint's mean token NLL over the pristine model's, in steps of a ratio of perplexities, as
-- in tasks/capability/gating.py; null (a level of its own) if one of them is not a number.
CREATE OR REPLACE MACRO gate_level(nll, base_nll, ratio) AS
    CASE WHEN isfinite(nll) AND isfinite(base_nll) THEN floor((nll - base_nll) / ln(ratio) + 0.5) END;
