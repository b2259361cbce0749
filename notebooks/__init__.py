"""Readable sources of the Zeppelin notes, and what turns them into notes at synth."""
