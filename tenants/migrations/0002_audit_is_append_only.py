from django.db import migrations

FORWARD = """
create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception '% is append-only', tg_table_name using errcode = 'restrict_violation';
end $$;
create trigger audit_is_append_only before update or delete on tenants_auditentry
  for each row execute function refuse_change();
"""
BACKWARD = """
drop trigger audit_is_append_only on tenants_auditentry;
drop function refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("tenants", "0001_people_tenants_tokens_and_audit")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
