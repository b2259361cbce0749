"""The platform as AWS resources: one stack a module, built at synth time by app.py."""
