"""Celery doors of datasets: three lines each, ids only."""
