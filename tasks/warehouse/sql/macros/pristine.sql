-- The pristine model is measured once for each ordering of a run, as the trajectory `base` (method `none`), edit count 0.

-- The rows of `measured` (the name of a query of the same statement), with those of the pristine model given to every
-- trajectory of its run, ordering, model and dataset, so that each trajectory starts at edit count 0.
CREATE OR REPLACE MACRO with_pristine(measured) AS TABLE
    SELECT * FROM query_table(measured) WHERE method <> 'none'
    UNION ALL BY NAME
    SELECT t.trajectory, t.method, b.* EXCLUDE (trajectory, method)
    FROM query_table(measured) AS b JOIN trajectories AS t USING (run, order_seed, model, dataset)
    WHERE b.method = 'none';
