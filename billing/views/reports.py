"""Reports: everybody's for staff under /reports/, the same pages for a tenant under /usage/."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from django.core.paginator import Paginator
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET

from billing import clock, csvs, money
from billing.forms_reports import DRILLED, GROUP_LABELS, GROUP_TITLES, ExplorerForm
from billing.months import Month
from billing.services import costcard, explorer, exports, invoices, scopes
from billing.services import overview as overviews
from billing.services.explorer import TIMES, Question, Report
from billing.services.scopes import Scope
from tenants.errors import Hidden, Invalid
from tenants.http import Request
from tenants.views.common import needs_tenant

ROWS_A_PAGE = 100
TOP = 6  # rows of the short tables of the overview
View = Callable[..., HttpResponseBase]


def report_page(view: View) -> View:
    """One page for two readers: staff over everything (`platform`), and a tenant over its own."""
    for_tenant = needs_tenant(view)  # type: ignore[arg-type]

    @require_GET
    @wraps(view)
    def checked(request: Request, *args: Any, platform: bool, **options: Any) -> HttpResponseBase:
        shown = view if platform else for_tenant
        return shown(request, *args, platform=platform, **options)

    return checked


def scope_of(request: Request, *, platform: bool, permission: str = "usage.view") -> Scope:
    """Whose money this page shows, by its address and its query."""
    currency = request.GET.get("currency", "")
    if platform:
        return scopes.everybody(request.actor, tenant=request.GET.get("tenant", ""), currency=currency)
    return scopes.own(request.actor, permission=permission, currency=currency)


def tabs(request: Request, *, platform: bool) -> list[dict[str, Any]]:
    """The pages of a report that this reader may open."""
    actor = request.actor
    pages = [("overview", _("Overview")), ("explorer", _("Explorer"))]
    if platform or actor.may("invoices.view"):
        pages.append(("finance", _("Finance")))
    if platform or actor.may("budgets.view"):
        pages.append(("budgets", _("Budgets")))
    found = [{"key": key, "label": label, "url": address(key, platform)} for key, label in pages]
    if platform:
        found.append({"key": "accounts", "label": _("Accounts"), "url": reverse("billing:report_accounts")})
    if platform and actor.may("prices.manage"):
        found.append({"key": "prices", "label": _("Prices"), "url": reverse("billing:report_prices")})
        found.append({"key": "taxes", "label": _("Taxes"), "url": reverse("billing:report_taxes")})
    if not platform:
        found.insert(0, {"key": "month", "label": _("Month"), "url": reverse("billing:usage")})
    return found


def address(page: str, platform: bool, *args: str) -> str:
    """The address of a report page for staff or for a tenant."""
    if platform and page == "overview":
        return reverse("billing:report")
    return reverse(f"billing:{'report' if platform else 'usage'}_{page}", args=args)


@report_page
def overview(request: Request, *, platform: bool) -> HttpResponse:
    scope = scope_of(request, platform=platform)
    sees_invoices = platform or request.actor.may("invoices.view")
    found = overviews.overview(scope, with_invoices=sees_invoices)
    start, end = found.calendar.first_day(found.month), found.now.date() + timedelta(days=1)
    groups = ["tenant", "user", "subject", "sku"] if platform else ["user", "subject", "sku"]
    tops = []
    for group in groups:
        report = explorer.explore(scope, Question(start=start, end=end, by=group))
        query = urlencode({"start": start, "end": end, "by": group})
        tops.append(
            {
                "title": GROUP_TITLES[group],
                "label": GROUP_LABELS[group],
                "rows": _linked(report.rows[:TOP], report, platform),
                "more": f"{address('explorer', platform)}?{query}",
                "currency": scope.currency,
            }
        )
    context = {
        "platform": platform,
        "tabs": tabs(request, platform=platform),
        "scope": scope,
        "found": found,
        "first_day": start,
        "finance_url": address("finance", platform),
        "chart": explorer.explore(scope, Question(start=start, end=end)).chart,
        "tops": tops,
        "drafts": invoices.open_drafts(request.actor)[:TOP] if platform else [],
    }
    return render(request, "billing/reports/overview.html", context)


@report_page
def explore(request: Request, *, platform: bool) -> HttpResponse:
    scope = scope_of(request, platform=platform)
    form = ExplorerForm.of(request.GET, platform=platform, labels=explorer.label_names(scope))
    found = None
    if form.is_valid():
        try:
            found = explorer.explore(scope, form.question)
        except Invalid as refusal:
            form.add_error(None, refusal.detail)
    query = urlencode({key: value for key, value in form.data.items() if key in form.fields})
    context = {
        "platform": platform,
        "tabs": tabs(request, platform=platform),
        "form": form,
        "report": found,
        **(_around(found, request, platform) if found else {}),
        "presets": _presets(form),
        "drilled": _drilled(form),
        "query": query,
        "csv_url": address("explorer_csv", platform),
        "focus_url": address("focus_csv", platform),
    }
    return render(request, "billing/reports/explorer.html", context, status=200 if found else 422)


@report_page
def explore_csv(request: Request, *, platform: bool) -> StreamingHttpResponse:
    scope, question = _asked(request, platform)
    found = explorer.explore(scope, question)
    name = f"costs-{question.start}-{question.end}-{'-'.join(question.groups)}.csv"
    return csvs.response(request, name, exports.cost_columns(found), exports.cost_rows(found))


@report_page
def focus_csv(request: Request, *, platform: bool) -> StreamingHttpResponse:
    scope, question = _asked(request, platform)
    name = f"focus-{question.start}-{question.end}.csv"
    return csvs.response(request, name, exports.FOCUS, exports.focus_rows(scope, question))


@report_page
def subject(request: Request, subject: str, *, platform: bool) -> HttpResponse:
    if platform and not request.actor.may("platform.reports"):
        raise Hidden  # an object's address: a stranger does not even learn that there is such a page
    found = costcard.card(scope_of(request, platform=platform), subject)
    context = {
        "platform": platform,
        "tabs": tabs(request, platform=platform),
        "card": found,
        "chart": {
            "labels": [day for day, _cost in found.days],
            "series": [{"name": found.title, "values": [cost for _day, cost in found.days]}],
            "unit": found.currency,
        },
    }
    return render(request, "billing/reports/subject.html", context)


def _asked(request: Request, platform: bool) -> tuple[Scope, Question]:
    scope = scope_of(request, platform=platform)
    form = ExplorerForm.of(request.GET, platform=platform, labels=explorer.label_names(scope))
    if not form.is_valid():
        raise Invalid(" ".join(str(message) for errors in form.errors.values() for message in errors))
    return scope, form.question


def _around(found: Report, request: Request, platform: bool) -> dict[str, Any]:
    """What the page says about a report besides its rows."""
    question = found.question
    days = (question.end - question.start).days
    pages = Paginator(found.rows, ROWS_A_PAGE).get_page(request.GET.get("page"))
    kept = {key: value for key, value in request.GET.items() if key != "page"}
    return {
        "heads": [_head(group, question) for group in question.groups],
        "title": _head_title(question),
        "days": days,
        "last_day": question.end - timedelta(days=1),
        "average": money.EXACT.divide(found.total.net, days),
        "dearest": max(found.rows, key=lambda row: row.amounts.net, default=None),
        "has_used": any(row.quantity for row in found.rows),
        "page_obj": pages,
        "page_rows": _linked(list(pages), found, platform),
        "page_query": urlencode(kept) + "&" if kept else "",
        "elsewhere": [
            {"currency": code, "url": "?" + urlencode({**kept, "currency": code})}
            for code in found.completeness.elsewhere
        ],
    }


def _head(group: str, question: Question) -> Any:
    return question.label if group == "label" else GROUP_LABELS[group]


def _head_title(question: Question) -> str:
    if not question.then:
        return str(GROUP_TITLES[question.by])
    return _("%(first)s, then %(second)s") % {
        "first": GROUP_TITLES[question.by],
        "second": str(_head(question.then, question)).lower(),
    }


def _linked(rows: list[explorer.Row], found: Report, platform: bool) -> Iterator[dict[str, Any]]:
    """Rows with a link on their first name: to the card of a subject, or to the same days seen closer."""
    page = address("explorer", platform)
    question = found.question
    span = {"start": question.start.isoformat(), "end": question.end.isoformat()}
    for row in rows:
        key, url = row.parts[0].key, ""
        by = question.by
        if by == "subject" and key:
            url = address("subject", platform, key)
        elif by == "tenant":
            url = f"{page}?{urlencode({**span, 'tenant': key, 'by': 'subject'})}"
        elif by == "meter":
            url = f"{page}?{urlencode({**span, 'meter': key, 'by': 'subject'})}"
        elif by == "user" and " " in key and not key.endswith(" "):
            tenant, _space, user = key.partition(" ")
            narrowed = {**span, "user": user, "by": "subject", **({"tenant": tenant} if platform else {})}
            url = f"{page}?{urlencode(narrowed)}"
        elif by == "label" and key:
            narrowed = {**span, "where": f"{question.label}={key}", "by": "subject"}
            url = f"{page}?{urlencode(narrowed)}"
        elif by == "day":
            after = date.fromisoformat(key) + timedelta(days=1)
            url = f"{page}?{urlencode({'start': key, 'end': after, 'by': 'hour'})}"
        elif by == "month":
            month = Month.parse(key)
            url = f"{page}?{urlencode({'start': month.first, 'end': month.next.first, 'by': 'day'})}"
        yield {
            "row": row, "url": url, "share": _share(row, found),
            "is_time": [group in TIMES for group in question.groups],
        }  # fmt: skip


def _share(row: explorer.Row, found: Report) -> Any:
    return money.EXACT.divide(row.amounts.net, found.total.net) if found.total.net else money.ZERO


def _presets(form: ExplorerForm) -> list[dict[str, Any]]:
    today = clock.now().date()
    month, tomorrow = Month.of(today), today + timedelta(days=1)
    spans = [
        (_("This month"), month.first, tomorrow),
        (_("Last month"), month.previous.first, month.first),
        (_("30 days"), tomorrow - timedelta(days=30), tomorrow),
        (_("12 months"), Month(today.year - 1, today.month).first, tomorrow),
    ]
    names = ("by", "then", "label", "tenant", "meter", *DRILLED)
    kept = {key: form.data[key] for key in names if form.data.get(key)}
    here = (form.data["start"], form.data["end"])
    return [
        {
            "label": label,
            "query": urlencode({"start": start, "end": end, **kept}),
            "current": here == (start.isoformat(), end.isoformat()),
        }
        for label, start, end in spans
    ]


def _drilled(form: ExplorerForm) -> list[dict[str, str]]:
    """The filters that came from a link, each with the way out of it."""
    given = {key: value for key, value in form.data.items() if key in form.fields}
    return [
        {
            "text": f"{given[name]}",
            "without": "?" + urlencode({key: value for key, value in given.items() if key != name}),
        }
        for name in DRILLED
        if given.get(name)
    ]
