from jobs.models.datasets import Dataset, DatasetVersion
from jobs.models.endpoints import Endpoint, Replica, Revision, UsageLog
from jobs.models.jobs import Attempt, GpuLease, Job, JobEvent
from jobs.models.registry import Artifact, Model, ModelVersion

__all__ = [
    "Artifact",
    "Attempt",
    "Dataset",
    "DatasetVersion",
    "Endpoint",
    "GpuLease",
    "Job",
    "JobEvent",
    "Model",
    "ModelVersion",
    "Replica",
    "Revision",
    "UsageLog",
]
