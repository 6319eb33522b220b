import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0007_the_database_keeps_credit_notes_and_payments")]
    operations = [
        migrations.CreateModel(
            name="CostRate",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("sku", models.CharField(default="standard", max_length=60, verbose_name="SKU")),
                ("currency", models.CharField(max_length=3, verbose_name="currency")),
                (
                    "unit_cost",
                    models.DecimalField(
                        decimal_places=8, max_digits=20, verbose_name="cost per natural unit"
                    ),
                ),
                ("valid_from", models.DateTimeField(verbose_name="valid from")),
                ("valid_to", models.DateTimeField(blank=True, null=True, verbose_name="valid to")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "meter",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.meter",
                        verbose_name="meter",
                    ),
                ),
            ],
            options={
                "verbose_name": "cost rate",
                "verbose_name_plural": "cost rates",
                "ordering": ["meter_id", "sku", "-valid_from"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("unit_cost__gte", 0)), name="cost_rate_is_not_negative"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("valid_to", None), ("valid_to__gt", models.F("valid_from")), _connector="OR"
                        ),
                        name="cost_rate_is_valid_for_a_while",
                    ),
                    models.UniqueConstraint(
                        fields=("meter", "sku", "currency", "valid_from"), name="one_cost_rate_from_a_moment"
                    ),
                ],
            },
        ),
    ]
