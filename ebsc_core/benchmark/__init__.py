"""Run suites: every row on every data set with every seed, and a table of all results."""
