"""The demo may be asked for at every start."""

from __future__ import annotations

from console.management.commands.demo import LIVE_JOB, Command
from jobs.models import Job
from jobs.services import jobs
from tenants.actor import Actor
from tests.jobs import factories_jobs as make


def test_the_demo_keeps_its_moving_job_and_makes_another_only_when_that_has_ended(as_ana: Actor) -> None:
    make.seed.seed()
    version = make.make_version(as_ana.tenant, format="images")
    first = Command()._live_job(as_ana, version)
    assert Command()._live_job(as_ana, version) == first
    jobs.cancel_job(as_ana, first)
    second = Command()._live_job(as_ana, version)
    assert second != first
    assert Job.objects.filter(name=LIVE_JOB).count() == 2
