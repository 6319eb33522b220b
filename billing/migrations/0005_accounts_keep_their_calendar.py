from django.db import migrations

FORWARD = """
alter table billing_taxrate add constraint one_tax_rate_for_a_moment exclude using gist (
  int8range(
    hashtextextended(region || chr(31) || category, 0), hashtextextended(region || chr(31) || category, 0), '[]'
  ) with &&,
  tstzrange(valid_from, valid_to, '[)') with &&
);

-- the invoices of a tenant join without gap or overlap only on one calendar, and add up only in one currency
create function billing_account_keeps_its_calendar() returns trigger language plpgsql as $$
begin
  if tg_op = 'DELETE' then
    raise exception 'a billing account is never deleted' using errcode = 'restrict_violation';
  end if;
  if (old.currency, old.zone, old.anchor_day, old.tenant_id)
     is distinct from (new.currency, new.zone, new.anchor_day, new.tenant_id)
     and exists (select 1 from billing_usageevent where tenant_id = old.tenant_id) then
    raise exception 'the account has usage: currency, time zone and first day stay'
      using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
create trigger account_keeps_its_calendar before update or delete on billing_billingaccount
  for each row execute function billing_account_keeps_its_calendar();
"""
BACKWARD = """
drop trigger account_keeps_its_calendar on billing_billingaccount;
drop function billing_account_keeps_its_calendar();
alter table billing_taxrate drop constraint one_tax_rate_for_a_moment;
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0004_accounts_taxes_and_price_models")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
