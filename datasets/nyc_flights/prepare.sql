-- One row a scheduled flight, with what is known before it departs and nothing else.
-- The deny-list of columns known only afterwards is held by a test.

WITH hourly_weather AS (
    -- The last observation before the hour of departure: the departure hour's own is not known yet when one predicts.
    -- Joined on time_hour, which is UTC: local (year, month, day, hour) repeats when the clocks go back.
    SELECT
        origin,
        time_hour + INTERVAL 1 HOUR AS next_hour,
        humid, precip, visib,
        -- One station reports 1048 mph; no hurricane has had 200.
        CASE WHEN wind_speed < 200 THEN wind_speed END AS wind_speed
    FROM weather
)

SELECT
    make_date(f.year, f.month, f.day) AS flight_date,
    f.carrier,
    f.flight,
    f.origin,
    -- NULL (unknown) for cancelled and diverted flights: they are left out and counted.
    CAST(f.arr_delay > 15 AS INT) AS late,

    f.dest,
    weekday(make_date(f.year, f.month, f.day)) AS weekday, -- 0 is Monday
    f.hour * 60 + f.minute AS departure_minute,
    f.distance,
    -- How busy the airport is meant to be: departures by the timetable from this airport in this hour.
    count(*) OVER (PARTITION BY f.origin, f.time_hour) AS origin_hour_departures,

    p.year AS plane_year,
    p.seats AS plane_seats,
    a.lat AS dest_lat,
    a.lon AS dest_lon,

    w.humid, w.wind_speed, w.precip, w.visib
FROM flights AS f
LEFT JOIN hourly_weather AS w ON w.origin = f.origin AND w.next_hour = f.time_hour
LEFT JOIN planes AS p ON p.tailnum = f.tailnum
LEFT JOIN airports AS a ON a.faa = f.dest
