"""Make the demo tenant on a running installation: data, training, compressed model and endpoint, all really run."""

from __future__ import annotations

import time
from typing import Any

import httpx
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from console import demo_data, first_start
from jobs.models import Dataset, DatasetVersion, Endpoint, Job
from jobs.services import datasets, endpoints, jobs
from jobs.specs import JobSpec
from jobs.states import JOB_ENDED, EndpointStatus, JobStatus
from tenants.actor import Actor
from tenants.http import actor_from_user
from tenants.models import Tenant
from tenants.services import tenants, tokens

TENANT = "Demo Lab"
DATASET = "Handwritten digits"
FIRST_JOB = "digits-cnn"
LIVE_JOB = "digits-cnn-long"
ENDPOINT = "digits"


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        started = time.monotonic()
        actor = self._actor()
        version = self._dataset(actor)
        job = self._finished_job(actor, version)
        endpoint = self._endpoint(actor, job)
        self._call(actor, endpoint)
        live = self._live_job(actor, version)
        self._say(f"{live.name} is training now: {settings.BASE_URL}{live.get_absolute_url()}", started)

    def _actor(self) -> Actor:
        """The first person, acting in the demo tenant."""
        person, _ = first_start.first_person()
        tenant = Tenant.objects.filter(name=TENANT, closed_at=None).first()
        if tenant is None:
            tenant = tenants.create_tenant(actor_from_user(person), name=TENANT)
        person.refresh_from_db()
        tenants.switch_tenant(actor_from_user(person), tenant)
        person.refresh_from_db()
        return actor_from_user(person)

    def _dataset(self, actor: Actor) -> DatasetVersion:
        found = Dataset.objects.filter(tenant=actor.tenant, name=DATASET, archived_at=None).first()
        if found is not None and found.latest is not None:
            return found.latest
        version = datasets.create_dataset(
            actor, name=DATASET, file=demo_data.digits_zip(), description=demo_data.DIGITS_NOTE
        )
        self.stdout.write(f"Uploaded {version.row_count} images as {version}.")
        return version

    def _job(self, actor: Actor, version: DatasetVersion, *, name: str, epochs: int) -> Job:
        spec = {
            "name": name,
            "recipe": "image-classification",
            "dataset": version.public_id,
            "hyperparameters": {"epochs": epochs, "batch_size": 64, "learning_rate": 0.002},
            "resources": {"processes": 2},
            "limits": {"max_time_s": 1800, "max_spend": "1.00"},
            "compression": {"methods": ["int8", "prune"], "max_accuracy_drop": 0.01},
        }
        return jobs.submit_job(actor, JobSpec.parse(actor, spec))

    def _finished_job(self, actor: Actor, version: DatasetVersion) -> Job:
        done = Job.objects.filter(tenant=actor.tenant, name=FIRST_JOB, status=JobStatus.SUCCEEDED).last()
        if done is not None:
            return done
        job = self._job(actor, version, name=FIRST_JOB, epochs=12)
        self.stdout.write(f"Training {job.name} with 2 processes ...")
        while not job.is_ended:
            time.sleep(1)
            job = job.reload()
        if job.status != JobStatus.SUCCEEDED:
            raise CommandError(f"The demo's training ended as {job.status}: {job.error or job.reason_text}")
        return job

    def _live_job(self, actor: Actor, version: DatasetVersion) -> Job:
        """One job that moves: the one that an earlier start began, if it still does."""
        moving = Job.objects.filter(tenant=actor.tenant, name=LIVE_JOB).exclude(status__in=JOB_ENDED).last()
        return moving or self._job(actor, version, name=LIVE_JOB, epochs=400)

    def _endpoint(self, actor: Actor, job: Job) -> Endpoint:
        endpoint = Endpoint.objects.filter(tenant=actor.tenant, slug=ENDPOINT).first()
        if endpoint is None:
            chosen = job.model_versions.get(is_chosen=True)
            endpoint = endpoints.publish_endpoint(actor, name="Digits", version=chosen, slug=ENDPOINT)
        deadline = time.monotonic() + 60
        while endpoint.status != EndpointStatus.LIVE:
            if time.monotonic() > deadline:
                raise CommandError(
                    f"The endpoint is {endpoint.status}: {endpoint.error or 'no worker came up in 60 s'}"
                )
            time.sleep(0.5)
            endpoint = endpoint.reload()
        return endpoint

    def _call(self, actor: Actor, endpoint: Endpoint) -> None:
        """Three real calls with a token that is revoked again."""
        token, plain = tokens.create_token(
            actor, name="demo call", scopes=["endpoints:invoke"], expires_in_days=1, granted_only=False
        )
        current = endpoint.current
        assert current is not None  # a live endpoint has a revision
        interface = current.version.interface
        body = {
            "inputs": [
                {**wanted, "shape": [1, *wanted["shape"][1:]], "data": interface["sample"][wanted["name"]]}
                for wanted in interface["inputs"]
            ]
        }
        url = f"{endpoint.base_url}/v2/models/{endpoint.slug}/infer"
        deadline = time.monotonic() + 15
        answered = 0
        while answered < 3:
            response = httpx.post(
                url, json=body, headers={"Authorization": f"Bearer {plain}"}, timeout=10, trust_env=False
            )
            answered += response.status_code == 200
            if response.status_code != 200:
                if time.monotonic() > deadline:
                    raise CommandError(f"{url} answered {response.status_code}: {response.text}")
                time.sleep(0.5)  # the gateway hears of a new token within a second
        tokens.revoke_token(actor, token)
        self.stdout.write(f"{url} answers.")

    def _say(self, text: str, started: float) -> None:
        self.stdout.write(f"{text} (demo made in {time.monotonic() - started:.0f} s)")
