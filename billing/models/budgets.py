"""How much a tenant wants to spend in a month, and what happens at the line."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from billing.models.fields import AmountField
from tenants.models.base import PublicIdField, TenantOwned


class BudgetMode(models.TextChoices):
    NOTIFY = "notify", _("Tell us by e-mail, change nothing")
    BLOCK_NEW = "block_new", _("Refuse new work, let running work finish")
    STOP = "stop", _("Refuse new work and stop what runs")


class BudgetScope(models.TextChoices):
    TENANT = "tenant", _("Everything")
    USER = "user", _("One person's work")
    LABEL = "label", _("Work with a label")


class Budget(TenantOwned):
    """One monthly budget (UTC months) of a tenant, of one person's work in it, or of work with a label."""

    NOUN: ClassVar[str] = "budgets"

    public_id = PublicIdField("bud")
    scope = models.CharField(_("of"), max_length=10, choices=BudgetScope, default=BudgetScope.TENANT)
    scope_value = models.CharField(
        _("person or label"), max_length=200, blank=True, default=""
    )  # an e-mail address, or key=value
    amount = AmountField(_("monthly budget"))
    mode = models.CharField(
        _("when it is reached"), max_length=10, choices=BudgetMode, default=BudgetMode.NOTIFY
    )
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "scope", "scope_value"], name="one_budget_per_scope"),
            models.CheckConstraint(
                condition=Q(scope=BudgetScope.TENANT, scope_value="")
                | (~Q(scope=BudgetScope.TENANT) & ~Q(scope_value="")),
                name="a_scope_says_of_what",
            ),
            models.CheckConstraint(condition=Q(scope__in=BudgetScope.values), name="budget_scope_is_known"),
            models.CheckConstraint(condition=Q(amount__gt=0), name="budget_is_positive"),
            models.CheckConstraint(condition=Q(mode__in=BudgetMode.values), name="budget_mode_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.amount} ({self.mode})"


class BudgetAlert(models.Model):
    """A threshold that was crossed in one month: told once, never again."""

    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="alerts")
    window_start = models.DateField()
    percent = models.PositiveSmallIntegerField()
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["budget", "window_start", "percent"], name="one_alert_per_threshold"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.percent} % in {self.window_start:%Y-%m}"
