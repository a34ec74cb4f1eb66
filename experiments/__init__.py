"""One short script per question; `python -m experiments.NAME --help` says what it asks."""
