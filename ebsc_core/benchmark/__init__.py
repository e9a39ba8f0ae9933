"""Suites of runs: every row on every data set with every seed, and an honest table of what came out."""
