"""Make, switch and set up a tenant."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from tenants.errors import Conflict, Invalid
from tenants.forms import TenantForm, add_faults
from tenants.http import Request
from tenants.models import Membership, Tenant, TenantKey
from tenants.permissions import require
from tenants.services import tenants as service
from tenants.views.common import needs_tenant


def tenant_new(request: Request) -> HttpResponse:
    form = TenantForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            tenant = service.create_tenant(request.actor, name=form.cleaned_data["name"])
        except (Invalid, Conflict) as refusal:
            add_faults(form, refusal)
        else:
            messages.success(request, _("%(tenant)s is ready. You own it.") % {"tenant": tenant.name})
            return redirect("console:overview")
    status = 422 if form.errors else 200
    return render(request, "tenants/tenants/new.html", {"form": form}, status=status)


@require_POST
def tenant_switch(request: Request) -> HttpResponse:
    wanted = request.POST.get("tenant", "").replace("\0", "")  # PostgreSQL takes no NUL
    tenant = get_object_or_404(Tenant.objects.visible_to(request.actor), public_id=wanted)
    service.switch_tenant(request.actor, tenant)
    return redirect("console:overview")


@needs_tenant
def tenant_settings(request: Request) -> HttpResponse:
    actor = request.actor
    require(actor, "tenant.view")
    if request.method == "POST":
        require(actor, "tenant.manage", actor.tenant)
    form = TenantForm(request.POST or None, instance=Tenant.objects.get(pk=actor.the_tenant.pk))
    if request.method == "POST" and form.is_valid():
        try:
            service.rename_tenant(actor, actor.the_tenant, name=form.cleaned_data["name"])
        except (Invalid, Conflict) as refusal:
            add_faults(form, refusal)
        else:
            messages.success(request, _("The name was changed."))
            return redirect("tenants:tenant_settings")
    key = TenantKey.objects.filter(tenant=actor.tenant).only("rotated_at").first()
    membership = Membership.objects.filter(tenant=actor.tenant, user=actor.user).first()
    context = {
        "form": form,
        "may_manage": actor.may("tenant.manage"),
        "rotated_at": key.rotated_at if key else None,
        "membership": membership,
    }
    return render(request, "tenants/tenants/settings.html", context, status=422 if form.errors else 200)
