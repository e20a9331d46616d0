"""The programs of the comparison: one short file for each framework, run in an environment of its own."""
