from jobs.models.datasets import Dataset, DatasetVersion
from jobs.models.endpoints import Endpoint, Replica, Revision, UsageLog
from jobs.models.jobs import Attempt, GpuLease, Job, JobEvent, JobFile
from jobs.models.keys import EndpointKey
from jobs.models.registry import Artifact, Model, ModelVersion
from jobs.models.requests import LoggedRequest, RequestLogGap
from jobs.models.traffic import AlertEvent, AlertMetric, AlertRule, InputCount, Sample

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
    "InputCount",
    "Job",
    "JobEvent",
    "JobFile",
    "LoggedRequest",
    "Model",
    "ModelVersion",
    "Replica",
    "RequestLogGap",
    "Revision",
    "Sample",
    "UsageLog",
]
