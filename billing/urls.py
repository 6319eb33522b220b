"""Pages and API routes of this app."""

from __future__ import annotations

from django.urls import URLPattern, path

from billing.api import invoices as invoices_api
from billing.api import prices as prices_api
from billing.api import reports as reports_api
from billing.api import usage as usage_api
from billing.api import usage_events as usage_events_api
from billing.views import accounts, budgets, cards, invoices, money_pages, prices, reports, usage
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
    path("invoices/credit", money_pages.credit, name="invoice_credit"),
    path("invoices/credit/buy", money_pages.credit_buy, name="invoice_credit_buy"),
    path("invoices/card", cards.card_new, name="invoice_card"),
    path("invoices/card/done", cards.card_done, name="invoice_card_done"),
    path("invoices/statement.csv", money_pages.statement_csv, name="invoice_statement_csv"),
    path("invoices/notes/<str:public_id>", money_pages.note_detail, name="invoice_note_detail"),
    path("invoices/notes/<str:public_id>/pdf", money_pages.note_pdf, name="invoice_note_pdf"),
    path("invoices/<str:public_id>/pay", money_pages.invoice_pay, name="invoice_pay"),
    path("invoices/<str:public_id>/payment", money_pages.invoice_payment, name="invoice_payment"),
    path("invoices/<str:public_id>/void", money_pages.invoice_void, name="invoice_void"),
    path("invoices/<str:public_id>/note", money_pages.invoice_note, name="invoice_note"),
    path("payments/stripe", money_pages.stripe_message, name="stripe_message"),
    path("invoices/<str:public_id>", invoices.invoice_detail, name="invoice_detail"),
    path("invoices/<str:public_id>/pdf", invoices.invoice_pdf, name="invoice_pdf"),
    path("invoices/<str:public_id>/finalize", invoices.invoice_finalize, name="invoice_finalize"),
    path("reports/", reports.overview, EVERYBODY, name="report"),
    path("reports/explorer", reports.explore, EVERYBODY, name="report_explorer"),
    path("reports/explorer.csv", reports.explore_csv, EVERYBODY, name="report_explorer_csv"),
    path("reports/focus.csv", reports.focus_csv, EVERYBODY, name="report_focus_csv"),
    path("reports/finance", finance.finances, EVERYBODY, name="report_finance"),
    path("reports/finance.csv", finance.finances_csv, EVERYBODY, name="report_finance_csv"),
    path("reports/budgets", budgets.budget_list, EVERYBODY, name="report_budgets"),
    path("reports/accounts", accounts.account_list, name="report_accounts"),
    path("reports/accounts/<str:tenant_id>", accounts.account_detail, name="report_account"),
    path("reports/accounts/<str:tenant_id>/change", accounts.account_change, name="report_account_change"),
    path("reports/accounts/<str:tenant_id>/credit", accounts.account_grant, name="report_account_grant"),
    path("reports/accounts/<str:tenant_id>/unpark", accounts.account_unpark, name="report_account_unpark"),
    path("reports/accounts/<str:tenant_id>/close", accounts.account_close, name="report_account_close"),
    path("reports/prices", prices.price_list, name="report_prices"),
    path("reports/prices/preview", prices.price_preview, name="report_price_preview"),
    path("reports/taxes", prices.tax_list, name="report_taxes"),
    path("reports/costs/<str:subject>", reports.subject, EVERYBODY, name="report_subject"),
    path("usage/overview", reports.overview, OWN, name="usage_overview"),
    path("usage/explorer", reports.explore, OWN, name="usage_explorer"),
    path("usage/explorer.csv", reports.explore_csv, OWN, name="usage_explorer_csv"),
    path("usage/focus.csv", reports.focus_csv, OWN, name="usage_focus_csv"),
    path("usage/finance", finance.finances, OWN, name="usage_finance"),
    path("usage/finance.csv", finance.finances_csv, OWN, name="usage_finance_csv"),
    path("usage/budgets", budgets.budget_list, OWN, name="usage_budgets"),
    path("usage/budgets/save", budgets.budget_save, name="usage_budgets_save"),
    path("usage/budgets/remove", budgets.budget_drop, name="usage_budgets_remove"),
    path("usage/costs/<str:subject>", reports.subject, OWN, name="usage_subject"),
]
api_urlpatterns: list[URLPattern] = [
    path("usage", usage_api.Usage.as_view(), name="usage-list"),
    path("usage/events", usage_events_api.UsageEvents.as_view(), name="usage-events"),
    path("usage/backfill", usage_events_api.UsageBackfill.as_view(), name="usage-backfill"),
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
