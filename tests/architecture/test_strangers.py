"""A stranger gets 404 on every route that names another tenant's object, and never reads its words elsewhere.

Routes are enumerated from the resolver, not listed by hand: a route without an expectation fails, and so does an
expectation without a route.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from tests.architecture.world import CANARY, build
from tests.factories import make_user

METHODS = ("get", "post", "put", "patch", "delete")
# Not ours: allauth, the stock admin (staff only, tested below), and language switching.
FOREIGN = ("admin/", "accounts/", "i18n/")

# What each route's arguments name. "owned": an object of a tenant; strangers get 404 on every method.
OWNED: dict[str, tuple[str, ...]] = {
    "tenants:invitation_revoke": ("invitation",),
    "tenants:member_role": ("membership",),
    "tenants:member_remove": ("membership",),
    "tenants:token_revoke": ("token",),
    "api:tenant-detail": ("tenant",),
    "api:tenant-switch": ("tenant",),
    "api:member-detail": ("membership",),
    "api:invitation-detail": ("invitation",),
    "api:token-detail": ("token",),
    "api:token-revoke": ("token",),
    "jobs:dataset_detail": ("dataset",),
    "jobs:dataset_upload": ("dataset",),
    "jobs:dataset_archive": ("dataset",),
    "jobs:dataset_restore": ("dataset",),
    "jobs:dataset_share": ("dataset",),
    "jobs:dataset_unshare": ("dataset",),
    "jobs:dataset_thumbnail": ("dataset", "dataset_version", "number"),
    "jobs:model_detail": ("model",),
    "jobs:model_archive": ("model",),
    "jobs:model_restore": ("model",),
    "jobs:model_share": ("model",),
    "jobs:model_unshare": ("model",),
    "jobs:version_detail": ("model", "version"),
    "jobs:version_archive": ("model", "version"),
    "jobs:version_restore": ("model", "version"),
    "jobs:artifact_download": ("model", "version", "artifact.name"),
    "api:dataset-detail": ("dataset",),
    "api:dataset-archive": ("dataset",),
    "api:dataset-restore": ("dataset",),
    "api:dataset-version-list": ("dataset",),
    "api:dataset-version-detail": ("dataset", "dataset_version"),
    "api:model-detail": ("model",),
    "api:model-archive": ("model",),
    "api:model-restore": ("model",),
    "api:model-version-list": ("model",),
    "api:version-detail": ("version",),
    "api:version-archive": ("version",),
    "api:version-restore": ("version",),
    "api:artifact-detail": ("version", "artifact.name"),
    "billing:usage_subject": ("job",),
    "billing:report_subject": ("job",),
    "billing:invoice_detail": ("invoice",),
    "billing:invoice_pdf": ("invoice",),
    "billing:invoice_finalize": ("invoice",),
    "billing:invoice_pay": ("invoice",),
    "billing:invoice_payment": ("invoice",),
    "billing:invoice_void": ("invoice",),
    "billing:invoice_note": ("invoice",),
    "billing:invoice_note_detail": ("note",),
    "billing:invoice_note_pdf": ("note",),
    "billing:report_account": ("tenant",),
    "billing:report_account_change": ("tenant",),
    "billing:report_account_grant": ("tenant",),
    "billing:report_account_unpark": ("tenant",),
    "billing:report_account_close": ("tenant",),
    "api:invoice-detail": ("invoice",),
    "api:invoice-finalize": ("invoice",),
    "jobs:job_detail": ("job",),
    "jobs:job_outcome": ("job",),
    "jobs:job_cancel": ("job",),
    "jobs:job_clone": ("job",),
    "api:job-detail": ("job",),
    "api:job-cancel": ("job",),
    "api:job-events": ("job",),
    "jobs:job_tensorboard": ("job",),
    "api:job-tensorboard": ("job",),
    "jobs:job_file": ("job", "job_file.name"),
    "api:job-file": ("job", "job_file.name"),
    "jobs:job_file_dataset": ("job", "job_file.name"),
    "api:job-file-dataset": ("job", "job_file.name"),
    "jobs:job_files_remove": ("job",),
    "api:job-files": ("job",),
    "jobs:endpoint_detail": ("endpoint",),
    "jobs:endpoint_status": ("endpoint",),
    "jobs:endpoint_try": ("endpoint",),
    "jobs:endpoint_revise": ("endpoint",),
    "jobs:endpoint_settings": ("endpoint",),
    "jobs:endpoint_share": ("endpoint",),
    "jobs:endpoint_unshare": ("endpoint",),
    "jobs:endpoint_stop": ("endpoint",),
    "jobs:endpoint_start": ("endpoint",),
    "jobs:endpoint_alerts": ("endpoint",),
    "jobs:endpoint_alert_remove": ("endpoint", "alert"),
    "api:endpoint-alerts": ("endpoint",),
    "api:endpoint-alert": ("endpoint", "alert"),
    "jobs:endpoint_traffic": ("endpoint",),
    "jobs:endpoint_traffic_now": ("endpoint",),
    "jobs:endpoint_drift": ("endpoint",),
    "jobs:endpoint_requests": ("endpoint",),
    "jobs:endpoint_requests_export": ("endpoint",),
    "api:endpoint-drift": ("endpoint",),
    "api:endpoint-requests": ("endpoint",),
    "jobs:endpoint_scaling": ("endpoint",),
    "jobs:endpoint_guard": ("endpoint",),
    "jobs:endpoint_canary": ("endpoint",),
    "jobs:endpoint_promote": ("endpoint",),
    "jobs:endpoint_rollback": ("endpoint",),
    "jobs:endpoint_shadow": ("endpoint",),
    "api:endpoint-canary": ("endpoint",),
    "api:endpoint-promote": ("endpoint",),
    "api:endpoint-rollback": ("endpoint",),
    "api:endpoint-shadow": ("endpoint",),
    "api:endpoint-traffic": ("endpoint",),
    "api:endpoint-detail": ("endpoint",),
    "api:endpoint-start": ("endpoint",),
    "api:endpoint-revisions": ("endpoint",),
    "api:endpoint-grants": ("endpoint",),
    "jobs:endpoint_keys": ("endpoint",),
    "jobs:endpoint_key_revoke": ("endpoint", "endpoint_key"),
    "api:endpoint-keys": ("endpoint",),
    "api:endpoint-key": ("endpoint", "endpoint_key"),
    "api:dataset-grants": ("dataset",),
    "api:model-grants": ("model",),
    "api:job-grants": ("job",),
    "jobs:job_share": ("job",),
    "jobs:job_unshare": ("job",),
}
# No object in the address: the stranger is answered from their own tenant, and never with the canary.
THEIRS: set[str] = {
    "console:overview", "console:overview_live", "console:search", "console:style", "tenants:member_list",
    "tenants:invitation_new", "tenants:token_list", "tenants:token_new", "tenants:audit_list",
    "tenants:audit_csv", "tenants:tenant_new", "tenants:tenant_switch", "tenants:tenant_settings",
    "jobs:dataset_list", "jobs:dataset_new", "jobs:model_list", "jobs:job_list", "jobs:job_new",
    "jobs:job_new_data", "jobs:job_new_price", "jobs:prediction_new", "jobs:prediction_fields",
    "jobs:prediction_price", "api:batch-prediction-list", "api:batch-prediction-estimate",
    "jobs:endpoint_list", "jobs:endpoint_new", "billing:usage",
    "billing:usage_csv", "billing:usage_budget", "billing:usage_budget_remove", "billing:invoice_list",
    "billing:invoice_credit",
    "billing:invoice_credit_buy", "billing:invoice_statement_csv",
    "api:tenant-list", "api:member-list", "api:invitation-list", "api:token-list", "api:audit-list",
    "api:dataset-list", "api:job-list", "api:job-estimate", "api:endpoint-list", "api:model-list",
    "api:usage-list", "api:usage-events", "api:usage-overview", "api:usage-costs",
    "api:usage-finance", "api:usage-backfill", "billing:usage_budgets_save", "billing:invoice_card",
    "billing:invoice_card_done", "billing:usage_budgets_remove",
    "billing:usage_overview", "billing:usage_explorer", "billing:usage_explorer_csv",
    "billing:usage_focus_csv", "billing:usage_finance", "billing:usage_finance_csv", "billing:usage_budgets",
    "api:invoice-list", "api:meter-list", "api:price-list",
}  # fmt: skip
# The address holds a secret that the stranger does not have.
SECRET: set[str] = {
    "billing:stripe_message",
    "tenants:invitation_accept",
    "tenants:magic_login",
    "api:invitation-accept",
}
# Staff of the installation only.
STAFF: set[str] = {
    "billing:report_accounts", "billing:report_prices", "billing:report_price_preview", "billing:report_taxes",
    "metrics", "billing:report", "billing:report_explorer", "billing:report_explorer_csv", "billing:report_focus_csv",
    "billing:report_finance", "billing:report_finance_csv", "billing:report_budgets", "api:report-overview",
    "api:report-costs", "api:report-finance",
}  # fmt: skip
# Says nothing of any tenant.
OPEN: set[str] = {
    "console:errors",
    "console:favicon",
    "console:health_live",
    "console:health_ready",
    "api-schema",
    "api-docs",
}


def routes(patterns: Any = None, namespace: str = "", prefix: str = "") -> dict[str, str]:
    """Every named route of ours: name -> address pattern."""
    found: dict[str, str] = {}
    for pattern in patterns if patterns is not None else get_resolver().url_patterns:
        address = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            inner = f"{namespace}{pattern.namespace}:" if pattern.namespace else namespace
            found |= routes(pattern.url_patterns, inner, address)
        elif isinstance(pattern, URLPattern) and not address.startswith(FOREIGN):
            assert pattern.name, f"{address} has no name"
            found[namespace + pattern.name] = address
    return found


def fill(address: str, objects: tuple[str, ...], world: dict[str, Any]) -> str:
    """The address with the public ids of these objects; a noun after a dot takes that attribute instead."""
    parts, left = [], list(objects)
    for part in address.split("/"):
        if "<" not in part:
            parts.append(part)
            continue
        start, end = part.index("<"), part.index(">")
        noun, _, attribute = left.pop(0).partition(".")
        value = 0 if noun == "number" else getattr(world[noun], attribute or "public_id")
        parts.append(f"{part[:start]}{value}{part[end + 1 :]}")
    assert not left, f"{address} does not take {objects}"
    return "/" + "/".join(parts)


def row_counts() -> dict[str, int]:
    """Rows per table of ours: a refused request must not leave anything behind."""
    ours = ("tenants_", "billing_", "jobs_", "guardian_")
    counts = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            if table.startswith(ours):
                cursor.execute(f'select count(*) from "{table}"')
                counts[table] = cursor.fetchone()[0]
    return counts


@pytest.fixture
def world(tenant, ana, cy) -> dict[str, Any]:
    return build(tenant, ana)


@pytest.fixture
def stranger(request, cy, browser_of, api_of) -> Client:
    """Cy, who owns another tenant: with a token of every scope on the API, signed in on pages."""
    name = request.getfixturevalue("name")
    return api_of(cy) if name.startswith("api") else browser_of(cy)


def test_every_route_has_an_expectation_and_every_expectation_a_route():
    told = OWNED.keys() | THEIRS | SECRET | STAFF | OPEN
    assert set(routes()) - told == set(), "new routes: say above what a stranger gets"
    assert told - set(routes()) == set(), "these routes are gone"


@pytest.mark.parametrize("name", sorted(OWNED))
def test_a_stranger_gets_404_for_another_tenants_object(name, world, stranger):
    address = fill(routes()[name], OWNED[name], world)
    before = row_counts()
    answers = {method: getattr(stranger, method)(address).status_code for method in METHODS}
    assert set(answers.values()) <= {404, 405}, (address, answers)
    assert 404 in answers.values(), (address, answers)
    assert row_counts() == before, f"{address} left something behind"


@pytest.mark.parametrize("name", sorted(OWNED))
def test_an_object_of_another_tenant_looks_like_one_that_never_was(name, world, stranger):
    foreign = fill(routes()[name], OWNED[name], world)
    nouns = [noun for noun in OWNED[name] if "." not in noun and noun != "number"]
    never = foreign
    for noun in nouns:
        real = world[noun].public_id
        never = never.replace(real, real[:-6] + "zzzzzz")
    for method in METHODS:
        a, b = getattr(stranger, method)(foreign), getattr(stranger, method)(never)
        assert a.status_code == b.status_code, (method, foreign)
        assert CANARY not in a.content.decode(errors="ignore").replace(foreign, "")


@pytest.mark.parametrize("name", sorted(THEIRS | OPEN))
def test_a_stranger_never_reads_another_tenants_words(name, world, stranger):
    address = "/" + routes()[name]
    for query in ("", f"?q={CANARY}"):
        response = stranger.get(address + query)
        assert response.status_code in {200, 302, 400, 401, 405, 404}, (address, response.status_code)
        body = b"".join(response.streaming_content) if response.streaming else response.content
        text = body.decode(errors="ignore").replace(f"?q={CANARY}", "").replace(f'value="{CANARY}"', "")
        text = text.replace(f"“{CANARY}”", "").replace(f"&quot;{CANARY}&quot;", "")
        assert CANARY not in text, address


@pytest.mark.parametrize("name", sorted(STAFF))
def test_platform_pages_are_for_staff_only(name, world, stranger):
    address = "/" + routes()[name]
    assert stranger.get(address).status_code in {401, 403, 404}, address


@pytest.mark.parametrize("name", sorted(set(OWNED) | THEIRS | STAFF))
def test_signed_out_nobody_gets_in(name, world):
    address = fill(routes()[name], OWNED.get(name, ()), world)
    for method in METHODS:
        response = getattr(Client(), method)(address)
        text = response.content.decode(errors="ignore")
        assert response.status_code in {302, 401, 403, 404, 405}, (method, address)
        if response.status_code == 302:
            assert response["Location"].startswith("/accounts/login/"), address
        assert CANARY not in text.replace(address, "")


def test_the_stock_admin_is_for_staff_only(world, browser_of, cy):
    assert browser_of(cy).get("/admin/").status_code == 302
    staff = make_user("staff@example.org", is_staff=True, is_superuser=True)
    assert browser_of(staff).get("/admin/").status_code == 200
