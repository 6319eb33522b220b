"""The work: datasets, jobs, models, endpoints."""
