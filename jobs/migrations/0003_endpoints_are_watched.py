import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import tenants.models.base


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0002_endpoints_split_traffic_and_scale"),
        ("tenants", "0003_a_token_knows_what_made_it"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="AlertRule",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(db_index=True, default=django.utils.timezone.now, editable=False),
                ),
                ("public_id", tenants.models.base.PublicIdField("alr")),
                ("name", models.CharField(max_length=80, verbose_name="name")),
                (
                    "metric",
                    models.CharField(
                        choices=[
                            ("error_share", "Share of errors (%)"),
                            ("p95_ms", "p95 latency (ms)"),
                            ("p99_ms", "p99 latency (ms)"),
                            ("request_rate", "Requests a second"),
                            ("waiting", "Requests waiting"),
                            ("replicas", "Workers ready"),
                            ("class_share", "Share of a class (%)"),
                            ("drift", "Drift (highest PSI)"),
                        ],
                        max_length=16,
                        verbose_name="number",
                    ),
                ),
                ("class_name", models.CharField(blank=True, max_length=200, verbose_name="class")),
                ("above", models.BooleanField(default=True, verbose_name="direction")),
                ("threshold", models.FloatField(verbose_name="bound")),
                ("window_s", models.PositiveIntegerField(default=300, verbose_name="window")),
                ("min_requests", models.PositiveIntegerField(default=20, verbose_name="fewest requests")),
                ("emails", models.JSONField(default=list, verbose_name="e-mail")),
                ("webhook_url", models.URLField(blank=True, max_length=500, verbose_name="webhook")),
                ("webhook_secret", models.BinaryField(default=b"")),
                ("firing_since", models.DateTimeField(blank=True, null=True)),
                ("value", models.FloatField(blank=True, null=True)),
                (
                    "created_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "endpoint",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="alert_rules",
                        to="jobs.endpoint",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="tenants.tenant"
                    ),
                ),
            ],
            options={
                "ordering": ["pk"],
            },
        ),
        migrations.CreateModel(
            name="AlertEvent",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("public_id", tenants.models.base.PublicIdField("ale")),
                ("at", models.DateTimeField(default=django.utils.timezone.now)),
                ("firing", models.BooleanField()),
                ("value", models.FloatField(null=True)),
                ("text", models.TextField()),
                ("webhook_due", models.DateTimeField(blank=True, null=True)),
                ("webhook_tries", models.PositiveSmallIntegerField(default=0)),
                ("webhook_said", models.CharField(blank=True, max_length=200)),
                (
                    "rule",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="events",
                        to="jobs.alertrule",
                    ),
                ),
            ],
            options={
                "ordering": ["-at", "-pk"],
            },
        ),
        migrations.CreateModel(
            name="Drift",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("hour", models.DateTimeField()),
                ("rows", models.PositiveIntegerField(default=0)),
                ("counts", models.JSONField(default=dict)),
                ("scores", models.JSONField(default=dict)),
                (
                    "revision",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="drift", to="jobs.revision"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="KeptRequest",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("request_id", models.CharField(max_length=80)),
                ("revision_number", models.PositiveIntegerField()),
                ("at", models.DateTimeField(db_index=True)),
                ("status", models.PositiveSmallIntegerField()),
                ("took_ms", models.FloatField()),
                ("sealed", models.BinaryField()),
                (
                    "endpoint",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="kept_requests",
                        to="jobs.endpoint",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Sample",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("at", models.DateTimeField()),
                ("seconds", models.FloatField()),
                ("requests", models.PositiveIntegerField(default=0)),
                ("errors", models.PositiveIntegerField(default=0)),
                ("refused", models.PositiveIntegerField(default=0)),
                ("rows", models.PositiveIntegerField(default=0)),
                ("batches", models.PositiveIntegerField(default=0)),
                ("us", models.PositiveBigIntegerField(default=0)),
                ("latency", models.JSONField(default=list)),
                ("in_flight", models.FloatField(default=0)),
                ("waiting", models.FloatField(default=0)),
                ("replicas", models.PositiveSmallIntegerField(default=0)),
                ("classes", models.JSONField(default=dict)),
                ("is_shadow", models.BooleanField(default=False)),
                (
                    "endpoint",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="samples",
                        to="jobs.endpoint",
                    ),
                ),
                (
                    "revision",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="jobs.revision"
                    ),
                ),
            ],
        ),
        migrations.AddConstraint(
            model_name="alertrule",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "metric__in",
                        [
                            "error_share",
                            "p95_ms",
                            "p99_ms",
                            "request_rate",
                            "waiting",
                            "replicas",
                            "class_share",
                            "drift",
                        ],
                    )
                ),
                name="alert_metric_is_known",
            ),
        ),
        migrations.AddIndex(
            model_name="alertevent",
            index=models.Index(
                condition=models.Q(("webhook_due__isnull", False)),
                fields=["webhook_due"],
                name="webhooks_due",
            ),
        ),
        migrations.AddConstraint(
            model_name="drift",
            constraint=models.UniqueConstraint(fields=("revision", "hour"), name="drift_is_counted_by_hour"),
        ),
        migrations.AddConstraint(
            model_name="keptrequest",
            constraint=models.UniqueConstraint(
                fields=("endpoint", "request_id"), name="a_request_is_kept_once"
            ),
        ),
        migrations.AddIndex(
            model_name="sample",
            index=models.Index(fields=["endpoint", "at"], name="samples_of_an_endpoint"),
        ),
    ]
