from jobs.models.datasets import Dataset, DatasetVersion
from jobs.models.endpoints import Endpoint, Replica, Revision, UsageLog
from jobs.models.jobs import Attempt, GpuLease, Job, JobEvent, JobFile
from jobs.models.keys import EndpointKey
from jobs.models.registry import Artifact, Model, ModelVersion
from jobs.models.traffic import AlertEvent, AlertMetric, AlertRule, Sample

__all__ = [
    "AlertEvent",
    "AlertMetric",
    "AlertRule",
    "Artifact",
    "Attempt",
    "Dataset",
    "DatasetVersion",
    "Endpoint",
    "EndpointKey",
    "GpuLease",
    "Job",
    "JobEvent",
    "JobFile",
    "Model",
    "ModelVersion",
    "Replica",
    "Revision",
    "Sample",
    "UsageLog",
]
