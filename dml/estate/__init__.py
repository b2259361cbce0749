"""The estate: one environment's stacks and what is in them, from the first byte of raw data to the receipt of its end.

In here: the deployed environment as all commands see it (`platform`), raw data (`data`), certificates, what an update
changes (`diff`), what there is (`inventory`, `existence`), pause, resume and destroy (`teardown`, `receipt`).
Never: what is learned from the data; and which cloud it is, only its commands ask.
"""
