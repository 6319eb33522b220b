"""The playground, a canary and a rollback as a person does them: browser, keeper, workers and gateway are real."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from jobs import routes
from jobs.models import Endpoint, Replica, Sample
from tenants.actor import Actor
from tenants.models import Tenant, User
from tests import factories
from tests.jobs import factories_endpoints as make
from tests.jobs.factories_endpoints import Caller, make_endpoint, make_model_version, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.browser]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[subprocess.Popen]:
    with make.keeper(tmp_path) as process:
        yield process
    make.forget_routes()


def test_trying_a_canary_promotion_and_rollback_in_the_browser(
    kept: subprocess.Popen, page: Page, as_ana: Actor, ana: User, tenant: Tenant, tmp_path: Path
) -> None:
    first = make_model_version(tenant, bundle=make.write_tiny_bundle(tmp_path / "one"))
    second = make_model_version(tenant, number=2, bundle=make.write_tiny_bundle(tmp_path / "two", lead=1))
    endpoint = make_endpoint(as_ana, first, slug="digits", requests_per_minute=100_000)
    until(lambda: endpoint.reload().status == "live", 60, "going live")

    # the playground: the sample picture has its middle pixel lit
    page.goto(endpoint.get_absolute_url())
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#answer")).to_contain_text("middle")

    # a canary on a share of the requests
    revisions = f"{endpoint.get_absolute_url()}?tab=revisions"
    page.goto(revisions)
    page.select_option("select[name=version]", second.public_id)
    page.fill("input[name=percent]", "20")
    page.get_by_role("button", name="Try with this share").click()
    expect(page.get_by_role("heading", name="Revision 2 is being tried")).to_be_visible()
    canary = endpoint.reload().canary
    until(lambda: Replica.objects.filter(revision=canary, status="ready").exists(), 60, "the canary")

    # the slider says where it stands
    slider = page.get_by_role("slider")
    slider.focus()
    slider.press("End")
    expect(page.locator("share-slider output")).to_have_text("100 %")
    slider.fill("60")
    page.get_by_role("button", name="Set share").click()
    expect(page.get_by_role("slider")).to_have_value("60")
    assert endpoint.reload().canary_share == 6_000

    # what callers do is on the page without a reload
    with make.gateway(tmp_path) as gateway, calls(Caller(gateway.url, factories.make_token(ana), endpoint)):
        routes.publish()
        page.goto(f"{endpoint.get_absolute_url()}/traffic")
        until(lambda: Sample.objects.filter(revision=canary, requests__gt=0).exists(), 60, "samples")
        asked = page.get_by_role("row", name="Canary").get_by_role("cell").nth(4)
        expect(asked).not_to_have_text("0", timeout=30_000)
        expect(page.locator("line-chart[data-chart=rate] .chart-legend")).to_contain_text(
            "Revision 2", timeout=30_000
        )

    page.goto(revisions)
    page.get_by_role("button", name="Promote to everybody").click()
    expect(page.get_by_text("Revision 2 answers everybody now.")).to_be_visible()
    assert endpoint.reload().current == canary
    page.get_by_role("button", name="Roll back to revision 1").click()
    expect(page.get_by_text("Back to revision 1.")).to_be_visible()
    found = Endpoint.objects.select_related("current").get(pk=endpoint.pk)
    assert found.current is not None and found.current.number == 1


class calls:
    """Somebody who calls all the time, until the block is left."""

    def __init__(self, call: Caller) -> None:
        self.call, self.over = call, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.over.wait(0.02):
            self.call(0)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
