-- One row a country and year.

SELECT
    country,
    year,
    make_date(year, 7, 1) AS counted,
    life_exp AS life_expectancy,
    gdp_per_cap AS gdp_per_person,
    pop AS population,
    continent
FROM countries
