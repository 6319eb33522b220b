from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0006_files_of_archived_datasets_are_deleted"),
        ("tenants", "0003_a_token_knows_what_made_it"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RemoveField(
            model_name="drift",
            name="revision",
        ),
        migrations.RemoveField(
            model_name="keptrequest",
            name="endpoint",
        ),
        migrations.RemoveConstraint(
            model_name="endpoint",
            name="endpoint_shares_are_shares",
        ),
        migrations.RemoveField(
            model_name="endpoint",
            name="log_mask",
        ),
        migrations.RemoveField(
            model_name="endpoint",
            name="log_share",
        ),
        migrations.AlterField(
            model_name="alertrule",
            name="metric",
            field=models.CharField(
                choices=[
                    ("error_share", "Share of errors (%)"),
                    ("p95_ms", "p95 latency (ms)"),
                    ("p99_ms", "p99 latency (ms)"),
                    ("request_rate", "Requests a second"),
                    ("waiting", "Requests waiting"),
                    ("replicas", "Workers ready"),
                    ("class_share", "Share of a class (%)"),
                    ("drift", "Drift of predictions (PSI)"),
                ],
                max_length=16,
                verbose_name="number",
            ),
        ),
        migrations.AddConstraint(
            model_name="endpoint",
            constraint=models.CheckConstraint(
                condition=models.Q(("canary_share__lte", 10000), ("shadow_share__lte", 10000)),
                name="endpoint_shares_are_shares",
            ),
        ),
        migrations.DeleteModel(
            name="Drift",
        ),
        migrations.DeleteModel(
            name="KeptRequest",
        ),
    ]
