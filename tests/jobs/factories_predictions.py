"""What tests of batch predictions need: a model of the weather, days to ask it about, and a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile

from billing import seed
from jobs.models import DatasetVersion, Job, Model, ModelVersion
from jobs.services.datasets import create_dataset
from jobs.services.predictions import submit_predictions
from jobs.specs_predictions import PredictionSpec
from tenants.actor import Actor
from tenants.models import Tenant
from tests.bundles import write_weather_bundle
from tests.jobs.factories_endpoints import make_model_version
from trainer.contract import Recipe


def make_weather(tenant: Tenant, folder: Path) -> ModelVersion:
    """A registered version of the weather model, with its files."""
    version = make_model_version(tenant, name="weather", bundle=write_weather_bundle(folder / "weather"))
    Model.objects.filter(pk=version.model_id).update(recipe=Recipe.TABULAR)
    return ModelVersion.objects.select_related("model", "tenant").get(pk=version.pk)


def upload_days(
    actor: Actor, rows: int = 40, *, name: str = "days", header: str = "id,degrees,sky"
) -> DatasetVersion:
    """Days without a label: row 5 is no number, and row 8 has a cell too few."""
    lines = [f"d{n},{n % 40 - 10},{'snow' if n % 11 == 0 else 'sun'}" for n in range(1, rows + 1)]
    lines[4], lines[7] = "d5,mild,sun", "d8,3"
    content = "\n".join([header, *lines]).encode()
    return create_dataset(actor, name=name, file=SimpleUploadedFile("days.csv", content))


def prediction_data(predictor: ModelVersion, data: DatasetVersion, **changes: Any) -> dict[str, Any]:
    return {"model_version": predictor.public_id, "dataset": data.public_id, **changes}


def make_prediction(actor: Actor, predictor: ModelVersion, data: DatasetVersion, **changes: Any) -> Job:
    """A batch prediction in line, through the real door."""
    seed.seed()
    spec = PredictionSpec.parse(actor, prediction_data(predictor, data, **changes))
    return submit_predictions(actor, spec)
