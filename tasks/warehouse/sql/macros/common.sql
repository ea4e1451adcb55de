-- Macros that all views may use. The macros are created before the views.

-- z of a two-sided 95 % interval.
CREATE OR REPLACE MACRO z95() AS 1.959963984540054;

-- Wilson's 95 % interval of a share `p` of `n` (Wilson 1927): exact in [0, 1], and never of width 0 at p = 0 or 1.
-- For scores that are fractions (teacher-forced token accuracy) it treats p * n as a number of successes, which
-- overstates the width a little. Both are null where n is 0 or p is null.
CREATE OR REPLACE MACRO wilson_low(p, n) AS
    CASE WHEN p IS NULL OR n IS NULL OR n = 0 THEN NULL WHEN p = 0 THEN 0.0 ELSE greatest(0.0,
        (p + z95() ** 2 / (2 * n) - z95() * sqrt(p * (1 - p) / n + z95() ** 2 / (4 * n ** 2))) / (1 + z95() ** 2 / n)) END;
CREATE OR REPLACE MACRO wilson_high(p, n) AS
    CASE WHEN p IS NULL OR n IS NULL OR n = 0 THEN NULL WHEN p = 1 THEN 1.0 ELSE least(1.0,
        (p + z95() ** 2 / (2 * n) + z95() * sqrt(p * (1 - p) / n + z95() ** 2 / (4 * n ** 2))) / (1 + z95() ** 2 / n)) END;

-- The part of an outcome's `reason` ('score: ...; agreement: ...') about `what`, without the id of the other case.
CREATE OR REPLACE MACRO reason_of(reason, what) AS regexp_replace(
    coalesce(nullif(regexp_extract(reason, what || ': ([^;]*)', 1), ''), reason), ' by case .*', ' by another case');
