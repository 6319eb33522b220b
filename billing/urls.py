"""Pages and API routes of this app."""

from __future__ import annotations

from django.urls import URLPattern, path

from billing.api import invoices as invoices_api
from billing.api import prices as prices_api
from billing.api import reports as reports_api
from billing.api import usage as usage_api
from billing.api import usage_events as usage_events_api
from billing.views import invoices, reports, usage
from billing.views import reports_finance as finance

# the same report pages twice: for staff over everything, for a tenant over its own
EVERYBODY, OWN = {"platform": True}, {"platform": False}

app_name = "billing"
urlpatterns: list[URLPattern] = [
    path("usage/", usage.usage, name="usage"),
    path("usage.csv", usage.usage_csv, name="usage_csv"),
    path("usage/budget", usage.budget_set, name="usage_budget"),
    path("usage/budget/remove", usage.budget_remove, name="usage_budget_remove"),
    path("invoices/", invoices.invoice_list, name="invoice_list"),
    path("invoices/<str:public_id>", invoices.invoice_detail, name="invoice_detail"),
    path("invoices/<str:public_id>/pdf", invoices.invoice_pdf, name="invoice_pdf"),
    path("invoices/<str:public_id>/finalize", invoices.invoice_finalize, name="invoice_finalize"),
    path("reports/", reports.overview, EVERYBODY, name="report"),
    path("reports/explorer", reports.explore, EVERYBODY, name="report_explorer"),
    path("reports/explorer.csv", reports.explore_csv, EVERYBODY, name="report_explorer_csv"),
    path("reports/focus.csv", reports.focus_csv, EVERYBODY, name="report_focus_csv"),
    path("reports/finance", finance.finances, EVERYBODY, name="report_finance"),
    path("reports/finance.csv", finance.finances_csv, EVERYBODY, name="report_finance_csv"),
    path("reports/budgets", finance.budgets, EVERYBODY, name="report_budgets"),
    path("reports/costs/<str:subject>", reports.subject, EVERYBODY, name="report_subject"),
    path("usage/overview", reports.overview, OWN, name="usage_overview"),
    path("usage/explorer", reports.explore, OWN, name="usage_explorer"),
    path("usage/explorer.csv", reports.explore_csv, OWN, name="usage_explorer_csv"),
    path("usage/focus.csv", reports.focus_csv, OWN, name="usage_focus_csv"),
    path("usage/finance", finance.finances, OWN, name="usage_finance"),
    path("usage/finance.csv", finance.finances_csv, OWN, name="usage_finance_csv"),
    path("usage/budgets", finance.budgets, OWN, name="usage_budgets"),
    path("usage/costs/<str:subject>", reports.subject, OWN, name="usage_subject"),
]
api_urlpatterns: list[URLPattern] = [
    path("usage", usage_api.Usage.as_view(), name="usage-list"),
    path("usage/events", usage_events_api.UsageEvents.as_view(), name="usage-events"),
    path("invoices", invoices_api.InvoiceList.as_view(), name="invoice-list"),
    path("invoices/<str:public_id>", invoices_api.InvoiceDetail.as_view(), name="invoice-detail"),
    path(
        "invoices/<str:public_id>/finalize", invoices_api.InvoiceFinalize.as_view(), name="invoice-finalize"
    ),
    path("reports/overview", reports_api.Overview.as_view(platform=True), name="report-overview"),
    path("reports/costs", reports_api.Costs.as_view(platform=True), name="report-costs"),
    path("reports/finance", reports_api.Finance.as_view(platform=True), name="report-finance"),
    path("usage/overview", reports_api.Overview.as_view(), name="usage-overview"),
    path("usage/costs", reports_api.Costs.as_view(), name="usage-costs"),
    path("usage/finance", reports_api.Finance.as_view(), name="usage-finance"),
    path("meters", prices_api.MeterList.as_view(), name="meter-list"),
    path("prices", prices_api.PriceList.as_view(), name="price-list"),
]
