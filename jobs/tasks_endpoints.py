"""Celery doors of endpoints: three lines each, ids only."""
