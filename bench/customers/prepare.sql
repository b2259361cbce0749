SELECT
    id,
    CASE churned WHEN 'yes' THEN 1 WHEN 'no' THEN 0 END AS churned,
    age,
    income,
    balance,
    visits,
    spend,
    region,
    city,
    channel
FROM customers
