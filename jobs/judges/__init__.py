"""What judges: how good a model is, what its data are like, whether they have moved, and whether it may be published.

In here: `metrics`, `profiling` (with the leak alarm), `drift`, `decision` (from where on a row is called positive),
`gate` (the verdict), `explanation` (what the model looks at), `card` (what a reader is told).
Never: a change of the model, and no look at rows that it has learned from as if they were new.
"""
