"""Models: those of a dataset listed, compared, promoted, drawn as a page, and used to score a file on this machine.

In here: the registry by hand (`registry`), which figures are shown and how (`figures`), the page (`report/`), scoring
(`scorer`, one file that needs nothing of ours; `score`, the command around it). Never: training, and never a run.
"""
