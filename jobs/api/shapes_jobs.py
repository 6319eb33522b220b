"""Shapes of the JSON of jobs. JobSpec.parse reads the spec; here it is described for the reader."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from jobs.models import Job, JobFile, ModelVersion
from jobs.services.jobs import Estimate, costs_of
from jobs.states import JobKind, JobStatus
from trainer.contract import COMPILE, OPTIMIZERS, SCHEDULES, WATCHED_METRICS, Method, Precision, Recipe


def plain(amount: Decimal) -> str:
    """Money as a decimal string, without an exponent and without idle zeros."""
    text = f"{amount:.10f}".rstrip("0").rstrip(".")
    return text or "0"


class ColumnsIn(serializers.Serializer):
    label = serializers.CharField(  # type: ignore[assignment]
        required=False, help_text="Column with the class or the number to predict; images have none."
    )
    text = serializers.CharField(
        required=False, help_text="Column with the text; for recommendation with the items' texts."
    )
    topic = serializers.CharField(required=False, help_text="sentiment-topic: the second thing to tell.")
    answer = serializers.CharField(required=False, help_text="intent-retrieval: the ready answer.")
    user = serializers.CharField(required=False, help_text="recommendation: who chose.")
    item = serializers.CharField(required=False, help_text="recommendation: what was chosen.")
    rating = serializers.CharField(required=False, help_text="recommendation: how it was liked, a number.")
    time = serializers.CharField(required=False, help_text="recommendation: when, a number.")
    features = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="Empty: every column but the label."
    )


class HyperParametersIn(serializers.Serializer):
    epochs = serializers.IntegerField(required=False, default=10)
    batch_size = serializers.IntegerField(required=False, default=64, help_text="Of all processes together.")
    learning_rate = serializers.FloatField(required=False, default=0.001)
    weight_decay = serializers.FloatField(required=False, default=0)
    optimizer = serializers.ChoiceField(choices=OPTIMIZERS, required=False, default="adamw")
    holdout = serializers.FloatField(required=False, default=0.2, help_text="Share of rows never trained on.")
    seed = serializers.IntegerField(required=False, default=7)


class EarlyStoppingIn(serializers.Serializer):
    metric = serializers.ChoiceField(choices=WATCHED_METRICS, required=False, default="val/loss")
    patience = serializers.IntegerField(required=False, default=3, help_text="Epochs without a better value.")


class TrainingIn(serializers.Serializer):
    schedule = serializers.ChoiceField(choices=SCHEDULES, required=False, default="cosine")
    warmup_steps = serializers.IntegerField(
        required=False, allow_null=True, help_text="Null: a twentieth of all steps."
    )
    clip_norm = serializers.FloatField(
        required=False, allow_null=True, help_text="Longest gradient let through."
    )
    grad_accumulation = serializers.JSONField(
        required=False, help_text='"auto" (as if left out), or into how many pieces a process cuts its rows.'
    )
    early_stopping = EarlyStoppingIn(required=False, allow_null=True)
    compile = serializers.ChoiceField(choices=COMPILE, required=False, default="off")
    checkpoint_every_s = serializers.FloatField(required=False, default=10)
    checkpoint_every_steps = serializers.IntegerField(required=False, allow_null=True)
    keep_checkpoints = serializers.IntegerField(
        required=False, default=2, help_text="The best is kept beside."
    )
    privacy_epsilon = serializers.FloatField(
        required=False,
        allow_null=True,
        help_text="Train with DP-SGD within this epsilon. Null: not privately.",
    )
    privacy_delta = serializers.FloatField(required=False, default=1e-5)
    privacy_clip = serializers.FloatField(required=False, default=1, help_text="Longest gradient of a row.")
    stall_after_s = serializers.FloatField(
        required=False,
        default=300,
        help_text="A step longer than this, and ten times the usual, ends the try.",
    )


class ResourcesIn(serializers.Serializer):
    processes = serializers.IntegerField(required=False, default=1)
    min_processes = serializers.IntegerField(
        required=False,
        allow_null=True,
        help_text="It may run with as few when no more are free, on the same batches. Null: it waits for all.",
    )
    gpus = serializers.IntegerField(required=False, default=0, help_text="0, or one for each process.")
    precision = serializers.ChoiceField(choices=list(Precision), required=False, default="fp32")


class LimitsIn(serializers.Serializer):
    max_time_s = serializers.IntegerField(required=False, default=3600)
    max_spend = serializers.DecimalField(14, 4, required=False, allow_null=True)


class CompressionIn(serializers.Serializer):
    methods = serializers.ListField(child=serializers.ChoiceField(choices=list(Method)), required=False)
    max_accuracy_drop = serializers.FloatField(required=False, default=0.01)
    sparsity = serializers.FloatField(required=False, default=0.5)


class JobIn(serializers.Serializer):
    name = serializers.CharField(max_length=120)
    recipe = serializers.ChoiceField(choices=list(Recipe))
    dataset = serializers.CharField(help_text="ds_… for the newest version, dsv_… for that one.")
    columns = ColumnsIn(required=False)
    hyperparameters = HyperParametersIn(required=False)
    training = TrainingIn(required=False)
    resources = ResourcesIn(required=False)
    limits = LimitsIn(required=False)
    compression = CompressionIn(required=False)
    model_name = serializers.CharField(required=False, allow_null=True, help_text="Left out: the job's name.")
    publish_to = serializers.CharField(
        required=False, allow_null=True, help_text="Address of an endpoint that gets the chosen variant."
    )
    labels = serializers.DictField(
        child=serializers.CharField(max_length=63),
        required=False,
        help_text="At most 10, such as team: vision. Costs are asked and budgets are counted by them.",
    )


class EstimateLineOut(serializers.Serializer):
    meter = serializers.CharField()
    title = serializers.CharField()
    units = serializers.IntegerField()
    rate = serializers.CharField(help_text="Decimal string, for one natural unit such as a process-hour.")
    low = serializers.CharField()
    high = serializers.CharField()


class EstimateOut(serializers.Serializer):
    low = serializers.CharField(help_text="Decimal string: what it probably costs.")
    high = serializers.CharField(help_text="Decimal string: the job is stopped before it costs more.")
    currency = serializers.CharField()
    low_s = serializers.IntegerField()
    high_s = serializers.IntegerField()
    lines = EstimateLineOut(many=True)


def estimate_row(estimate: Estimate) -> dict[str, Any]:
    """An estimate as EstimateOut describes it."""
    return {
        "low": plain(estimate.low),
        "high": plain(estimate.high),
        "currency": estimate.currency,
        "low_s": estimate.low_s,
        "high_s": estimate.high_s,
        "lines": [
            {
                "meter": line.meter,
                "title": line.title,
                "units": line.units,
                "rate": plain(line.rate),
                "low": plain(line.low),
                "high": plain(line.high),
            }
            for line in estimate.lines
        ],
    }


class EventOut(serializers.Serializer):
    seq = serializers.IntegerField()
    at = serializers.DateTimeField()
    kind = serializers.CharField(
        help_text="status, state, progress, metric, log, checkpoint, variant or error"
    )
    data = serializers.DictField()  # type: ignore[assignment]
    text = serializers.CharField(help_text="The event in words; empty for metrics and progress.")


class EventsOut(serializers.Serializer):
    data = EventOut(many=True)  # type: ignore[assignment]
    has_more = serializers.BooleanField()
    next_cursor = serializers.CharField(allow_null=True, help_text="The next ?after=.")
    last_seq = serializers.IntegerField()


class MadeModelOut(serializers.Serializer):
    id = serializers.CharField()
    model = serializers.CharField()
    variant = serializers.CharField()
    number = serializers.IntegerField()


class PredictedOut(serializers.Serializer):
    rows = serializers.IntegerField()
    answered = serializers.IntegerField()
    bad = serializers.IntegerField(help_text="Rows without an answer; the files say why.")


class JobFileOut(serializers.ModelSerializer):
    class Meta:
        model = JobFile
        fields = ["name", "size_bytes", "sha256"]


class JobOut(serializers.ModelSerializer):
    """A job; `many=True` looks all costs up at once."""

    id = serializers.CharField(source="public_id", read_only=True)
    dataset_version = serializers.CharField(source="dataset_version.public_id", read_only=True)
    created_by = serializers.EmailField(source="created_by.email", read_only=True, default=None)
    kind = serializers.ChoiceField(choices=JobKind.values, read_only=True)
    status = serializers.ChoiceField(choices=JobStatus.values, read_only=True)
    files = JobFileOut(many=True, read_only=True)
    result = serializers.SerializerMethodField(help_text="Of a batch prediction that has succeeded.")
    reason = serializers.CharField(read_only=True)
    reason_text = serializers.CharField(read_only=True)
    labels = serializers.SerializerMethodField()
    attempt = serializers.SerializerMethodField()
    cost = serializers.SerializerMethodField(help_text="Decimal string, up to now.")
    currency = serializers.SerializerMethodField()
    estimate_low = serializers.SerializerMethodField()
    estimate_high = serializers.SerializerMethodField()
    model_version = serializers.SerializerMethodField()

    class Meta:
        model = Job
        fields = [
            "id", "kind", "name", "recipe", "status", "reason", "reason_text", "error", "waiting_for", "spec",
            "labels", "dataset_version", "phase", "step", "total_steps", "epoch", "eta_s", "attempt", "last_seq",
            "cost", "currency", "estimate_low", "estimate_high", "model_version", "created_by",
            "created_at", "started_at", "finished_at", "files", "result",
        ]  # fmt: skip

    def get_labels(self, job: Job) -> dict[str, str]:
        return job.spec.get("labels") or {}

    @extend_schema_field(PredictedOut(allow_null=True))
    def get_result(self, job: Job) -> dict[str, int] | None:
        """Counts only: words of rows are in the files, for those who may download them."""
        return {name: job.result[name] for name in ("rows", "answered", "bad")} if job.result else None

    def get_attempt(self, job: Job) -> int:
        known: int | None = getattr(job, "attempt_count", None)  # lists bring it along
        return job.attempts.count() if known is None else known

    def get_cost(self, job: Job) -> str:
        costs = self.context.get("costs") or costs_of([job])
        return plain(costs[job.public_id])

    def get_currency(self, job: Job) -> str:
        return str(settings.CURRENCY)

    def get_estimate_low(self, job: Job) -> str:
        return plain(job.estimate_low)

    def get_estimate_high(self, job: Job) -> str:
        return plain(job.estimate_high)

    @extend_schema_field(MadeModelOut(allow_null=True))
    def get_model_version(self, job: Job) -> dict[str, Any] | None:
        known: list[ModelVersion] | None = getattr(job, "chosen_versions", None)
        if known is None:
            known = list(job.model_versions.filter(is_chosen=True).select_related("model"))
        if not known:
            return None
        made = known[0]
        return {
            "id": made.public_id,
            "model": made.model.public_id,
            "variant": made.variant,
            "number": made.number,
        }
