-- One row a penguin and egg. The species' English name is the first word of "Adelie Penguin (Pygoscelis adeliae)".

SELECT
    individual,
    egg_date,
    split_part(species, ' ', 1) AS species,
    bill_length, bill_depth, flipper_length, body_mass,
    island,
    lower(sex) AS sex
FROM penguins
