"""Pages and API routes of this app."""

from __future__ import annotations

from django.urls import path

from tenants.api.audit import AuditList
from tenants.api.invitations import InvitationAccept, InvitationDetail, InvitationList
from tenants.api.members import MemberDetail, MemberList
from tenants.api.tenants import TenantDetail, TenantList, TenantSwitch
from tenants.api.tokens import TokenDetail, TokenList, TokenRevoke
from tenants.views import accounts, audit, members, tenants, tokens

app_name = "tenants"
urlpatterns = [
    path("members/", members.member_list, name="member_list"),
    path("members/invite", members.invitation_new, name="invitation_new"),
    path("members/invitations/<slug:public_id>/revoke", members.invitation_revoke, name="invitation_revoke"),
    path("members/<slug:public_id>/role", members.member_role, name="member_role"),
    path("members/<slug:public_id>/remove", members.member_remove, name="member_remove"),
    path("invitations/<slug:token>", members.invitation_accept, name="invitation_accept"),
    path("tokens/", tokens.token_list, name="token_list"),
    path("tokens/new", tokens.token_new, name="token_new"),
    path("tokens/<slug:public_id>/revoke", tokens.token_revoke, name="token_revoke"),
    path("audit/", audit.audit_list, name="audit_list"),
    path("audit.csv", audit.audit_csv, name="audit_csv"),
    path("tenants/new", tenants.tenant_new, name="tenant_new"),
    path("tenants/switch", tenants.tenant_switch, name="tenant_switch"),
    path("settings", tenants.tenant_settings, name="tenant_settings"),
    path("welcome/<slug:token>", accounts.magic_login, name="magic_login"),
]
api_urlpatterns = [
    path("tenants", TenantList.as_view(), name="tenant-list"),
    path("tenants/<slug:public_id>", TenantDetail.as_view(), name="tenant-detail"),
    path("tenants/<slug:public_id>/switch", TenantSwitch.as_view(), name="tenant-switch"),
    path("members", MemberList.as_view(), name="member-list"),
    path("members/<slug:public_id>", MemberDetail.as_view(), name="member-detail"),
    path("invitations", InvitationList.as_view(), name="invitation-list"),
    path("invitations/accept", InvitationAccept.as_view(), name="invitation-accept"),
    path("invitations/<slug:public_id>", InvitationDetail.as_view(), name="invitation-detail"),
    path("tokens", TokenList.as_view(), name="token-list"),
    path("tokens/<slug:public_id>", TokenDetail.as_view(), name="token-detail"),
    path("tokens/<slug:public_id>/revoke", TokenRevoke.as_view(), name="token-revoke"),
    path("audit", AuditList.as_view(), name="audit-list"),
]
