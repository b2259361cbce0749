"""Runs: a dataset's state machine is started, followed to its end, and what it left is shown.

In here: the execution (`pipeline`), the run as the operator sees it (`run`), its closing screen (`screen`), what stands
and what ran (`status`). Never: how a model is judged, shown or scored (models), nor how stacks come to stand (estate).
"""
