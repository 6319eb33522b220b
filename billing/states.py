"""The life of an invoice, with the arrow beside the state."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from tenants.lifecycle import Lifecycle, arrows


class InvoiceStatus(models.TextChoices):
    DRAFT = "draft", _("Draft")  # lines are still being written; only inside the transaction that finalizes
    FINALIZED = "finalized", _("Finalized")  # draft -> finalized: numbered and frozen


TONES = {InvoiceStatus.DRAFT: "info", InvoiceStatus.FINALIZED: "ok"}

INVOICE = Lifecycle(
    noun="invoice",
    arrows=arrows({InvoiceStatus.DRAFT: [], InvoiceStatus.FINALIZED: [InvoiceStatus.DRAFT]}),
)
