"""Zeppelin on the workbench from a workstation: the way to it (`tunnel`), its answers (`rest`), how Spark's interpreter
is set there (`interpreter`), whether it runs a note (`check`), and analysts' notes between the bucket and files for
review (`notes`, with `source`, which knows a note as Markdown). And Zeppelin on this machine: a release that the user
has (`release`), run with what the embedded cloud has (`server`).

Never: how notes are made of the project's own sources (notebooks/), or how Zeppelin is set up (stacks/emr.py).
"""
