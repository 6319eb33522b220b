"""Benches: each prints a table and writes bench/results/NAME.json. Numbers in the documents come from here."""
