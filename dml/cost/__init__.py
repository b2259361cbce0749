"""Money: what the templates will cost, before anything is deployed; no AWS account needed.

In here: prices (`prices.toml`, `prices`), what templates declare (`assembly`, `clusters`, `schedules`), how much of it
is used (`estimate`, `sizing`), comparisons (`difference`, `pricing`), the screen (`show`). Never: a call to AWS.
"""
