"""The whole way with a real keeper, worker and gateway: from a caller's request to the log and the counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings

from jobs import routes
from jobs.models import InputCount, LoggedRequest
from jobs.services import inputs, requests
from jobs.services.endpoints import change_endpoint
from jobs.specs_endpoints import EndpointChange
from tenants.actor import Actor
from tenants.models import Tenant, User
from tests import factories
from tests.jobs import factories_endpoints as make
from tests.jobs.factories_endpoints import Caller, make_endpoint, make_model_version, until
from trainer import gauges
from trainer.contract import Recipe

pytestmark = pytest.mark.django_db(transaction=True)


def with_profile(folder: Path) -> Path:
    """A bundle as the trainer leaves it today: trained on pictures with one bright pixel."""
    path = make.write_tiny_bundle(folder) / "bundle.json"
    described = json.loads(path.read_text())
    pictures = np.stack([make.picture(number % 3) for number in range(90)])
    described["profile"] = gauges.profile(Recipe.IMAGE, {"image": pictures})
    path.write_text(json.dumps(described))
    return folder


def test_a_request_is_logged_and_its_inputs_are_counted(
    as_ana: Actor, ana: User, tenant: Tenant, tmp_path: Path
) -> None:
    version = make_model_version(tenant, bundle=with_profile(tmp_path / "bundle"))
    settings.REQUESTS_DIR = tmp_path / "requests"
    with make.keeper(tmp_path), make.gateway(tmp_path) as gateway:
        endpoint = make_endpoint(as_ana, version, requests_per_minute=100_000)
        change_endpoint(as_ana, endpoint, EndpointChange.parse({"log_percent": 100}))
        call = Caller(gateway.url, factories.make_token(ana), endpoint)
        routes.publish()
        until(lambda: call(1).status_code == 200, 30, "the first answer")

        def is_logged() -> bool:
            call(2)
            requests.ship_logged_requests()
            return LoggedRequest.objects.filter(endpoint=endpoint, label="right").exists()

        until(is_logged, 30, "a logged request")

        def is_counted() -> bool:
            call(0)
            return InputCount.objects.filter(revision=endpoint.current, rows__gt=3).exists()

        until(is_counted, 30, "counted inputs")
    (row, *_) = LoggedRequest.objects.filter(label="right")
    (entry,) = requests.entries(tenant, [row])
    assert entry.key and entry.input["inputs"][0]["shape"] == [1, 1, 8, 8]
    assert "data" not in entry.input["inputs"][0]
    found = inputs.drift_of(endpoint.current, window=inputs.KEPT)
    assert {one.what: one.verdict for one in found.gauges} == {
        "brightness": "As trained", "contrast": "As trained",
    }  # fmt: skip
    make.forget_routes()
