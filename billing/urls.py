"""Pages and API routes of this app."""

from __future__ import annotations

from django.urls import URLPattern, path

from billing.api import invoices as invoices_api
from billing.api import prices as prices_api
from billing.api import reports as reports_api
from billing.api import usage as usage_api
from billing.api import usage_events as usage_events_api
from billing.views import invoices, reports, usage

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
    path("reports/", reports.report, name="report"),
    path("reports.csv", reports.report_csv, name="report_csv"),
]
api_urlpatterns: list[URLPattern] = [
    path("usage", usage_api.Usage.as_view(), name="usage-list"),
    path("usage/events", usage_events_api.UsageEvents.as_view(), name="usage-events"),
    path("invoices", invoices_api.InvoiceList.as_view(), name="invoice-list"),
    path("invoices/<str:public_id>", invoices_api.InvoiceDetail.as_view(), name="invoice-detail"),
    path(
        "invoices/<str:public_id>/finalize", invoices_api.InvoiceFinalize.as_view(), name="invoice-finalize"
    ),
    path("reports/costs", reports_api.Costs.as_view(), name="report-costs"),
    path("meters", prices_api.MeterList.as_view(), name="meter-list"),
    path("prices", prices_api.PriceList.as_view(), name="price-list"),
]
