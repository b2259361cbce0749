-- One row an answered form. Nothing in the file names a person or a form, and some answers are the same in all columns:
-- the key is a hash of all of them and a number among equals, which is the same whatever the order of the rows.

WITH hashed AS (
    SELECT *, md5(concat_ws('|',
        age, workclass, fnlwgt, education, education_num, marital_status, occupation, relationship,
        race, sex, capital_gain, capital_loss, hours_per_week, native_country, income
    )) AS answers
    FROM people
)

SELECT
    answers,
    row_number() OVER (PARTITION BY answers ORDER BY age) AS copy,
    -- The test file of the same source writes its labels with a full stop.
    CAST(rtrim('.', income) = '>50K' AS INT) AS above_50k,
    age, education_num, capital_gain, capital_loss, hours_per_week,
    workclass, marital_status, occupation, relationship, race, sex, native_country
FROM hashed
