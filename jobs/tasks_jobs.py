"""Celery doors of jobs: three lines each, ids only."""
