"""Kills, damages and hostile inputs: what ``tests/reliability`` and ``benchmarks/reliability.py`` share."""
