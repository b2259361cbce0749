"""What each Python that Spark starts on this machine finds first on its path.

In here: `sitecustomize`, by whose name Python looks for it. Never: what jobs could import.
"""
