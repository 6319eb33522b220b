"""The budgets page: of everything, of a person, of a label; set, changed and removed by those who may."""

from __future__ import annotations

from decimal import Decimal

import pytest

from billing.models import Budget
from billing.services import budgets, ingest
from tests.factories import make_user

PAGE, SAVE, REMOVE = "/usage/budgets", "/usage/budgets/save", "/usage/budgets/remove"


def said(**changes):
    return {"scope": "tenant", "value": "", "amount": "10", "mode": "notify", **changes}


@pytest.mark.parametrize(
    ("scope", "value", "stored"),
    [
        ("tenant", "", ""),
        ("user", "ANA@example.org", "ana@example.org"),
        ("label", " team = vision ", "team=vision"),
    ],
)
def test_a_budget_is_set_changed_and_removed_on_the_page(tenant, browser_of, ana, scope, value, stored):
    client = browser_of(ana)
    assert client.post(SAVE, said(scope=scope, value=value)).url == PAGE
    assert client.post(SAVE, said(scope=scope, value=value, amount="12.50", mode="stop")).status_code == 302
    budget = Budget.objects.get()
    assert (budget.scope, budget.scope_value, budget.amount, budget.mode) == (
        scope,
        stored,
        Decimal("12.5"),
        "stop",
    )
    page = client.get(PAGE, {"scope": scope, "value": stored}).content.decode()
    assert 'value="12.50"' in page and (stored in page)
    client.post(REMOVE, {"scope": scope, "value": stored})
    assert not Budget.objects.exists()
    assert "No budget is set" in client.get(PAGE).content.decode()


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"scope": "user", "value": "cy@example.org"}, "value", "Nobody in this tenant"),
        ({"scope": "label", "value": "vision"}, "value", "key=value"),
        ({"scope": "tenant", "value": "team=vision"}, "value", "names nobody and no label"),
        ({"scope": "galaxy"}, "scope", "Select a valid choice"),
        ({"amount": "0"}, "amount", "more than zero"),
        ({"amount": "0.001"}, "amount", "decimal places"),
        ({"amount": "NaN"}, "amount", "Enter a number"),
        ({"mode": "explode"}, "mode", "Select a valid choice"),
        ({"scope": "label", "value": "team=\x00"}, "value", "Null characters"),
    ],
)
def test_what_is_no_budget_is_said_at_its_field(tenant, browser_of, ana, changes, field, words):
    answer = browser_of(ana).post(SAVE, said(**changes))
    page = answer.content.decode()
    assert answer.status_code == 422 and words in page and f'id="id_{field}_error"' in page
    assert not Budget.objects.exists()


def test_people_and_labels_are_offered_to_those_who_may_set_budgets(tenant, browser_of, ana, ben, cy):
    event = {"key": "k", "meter": "train.gpu", "quantity": 3600, "subject": "j", "labels": {"team": "vision"}}
    ingest.record_batch(tenant, source="t", events=[event])
    page = browser_of(ana).get(PAGE).content.decode()
    assert '<option value="ben@example.org">' in page and '<option value="team=vision">' in page
    assert "cy@example.org" not in page
    looks = browser_of(ben).get(PAGE)  # a member sees budgets and sets none
    assert looks.status_code == 200 and "Save budget" not in looks.content.decode()


def test_only_those_who_manage_budgets_set_and_remove_them(tenant, browser_of, as_ana, ben):
    budgets.set_budget(as_ana, amount=Decimal(5), mode="stop", scope="label", value="team=vision")
    viewer = make_user("vic@example.org", tenant=tenant, role="viewer")
    for person in (ben, viewer):
        assert browser_of(person).post(SAVE, said(amount="99")).status_code == 403
        gone = browser_of(person).post(REMOVE, {"scope": "label", "value": "team=vision"})
        assert gone.status_code == 403
    assert Budget.objects.get().amount == 5
    assert browser_of(viewer).get(PAGE).status_code == 403


def test_a_link_to_change_a_budget_of_somebody_else_fills_in_nothing(tenant, browser_of, as_ana, cy):
    budgets.set_budget(as_ana, amount=Decimal("54321"), mode="stop", scope="label", value="team=vision")
    page = browser_of(cy).get(PAGE, {"scope": "label", "value": "team=vision"}).content.decode()
    assert "54321" not in page
    assert browser_of(cy).get(PAGE, {"scope": "x"}).status_code == 200
    assert browser_of(cy).post(REMOVE, {"scope": "label", "value": "a\x00b"}).status_code == 302


def test_staff_see_every_budget_and_no_form(tenant, browser_of, as_ana, staff):
    budgets.set_budget(as_ana, amount=Decimal(5), mode="stop", scope="label", value="team=vision")
    page = browser_of(staff).get("/reports/budgets").content.decode()
    assert "team=vision" in page and "Save budget" not in page
