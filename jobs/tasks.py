"""Celery doors, by noun."""

from jobs.tasks_datasets import *  # noqa: F403
from jobs.tasks_endpoints import *  # noqa: F403
from jobs.tasks_jobs import *  # noqa: F403
