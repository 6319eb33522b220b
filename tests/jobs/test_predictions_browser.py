"""The form of a batch prediction in a real browser: what is chosen decides what is asked next."""

from __future__ import annotations

import pytest
from django.urls import reverse

from billing import seed
from tenants.http import actor_from_user
from tests.jobs.factories_predictions import make_weather, upload_days

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def test_another_dataset_brings_its_columns_and_its_price(page, tenant, ana, tmp_path):
    seed.seed()
    actor = actor_from_user(ana)
    weather = make_weather(tenant, tmp_path)
    days = upload_days(actor)
    other = upload_days(actor, 60, name="other days", header="id,temperature,sky")
    page.goto(f"{reverse('jobs:prediction_new')}?version={weather.public_id}&dataset={days.public_id}")
    assert page.get_by_label("degrees").first.input_value() == "degrees"
    page.get_by_label("Dataset").select_option(other.public_id)
    # no column is called so: it asks, and says in the summary what is missing
    page.get_by_text("The model needs degrees").wait_for()
    picker = page.locator("select[name=column_0]")
    assert picker.input_value() == ""
    picker.select_option("temperature")
    page.locator("#prediction-summary").get_by_text("Predicted rows").wait_for()
    assert page.locator("#prediction-summary dd").first.inner_text() == "60"
    page.get_by_text("The same with curl").click()
    assert '"degrees": "temperature"' in page.locator("#prediction-summary").inner_text()
