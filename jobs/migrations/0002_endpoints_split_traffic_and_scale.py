import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0001_datasets_jobs_models_and_endpoints"),
        ("tenants", "0003_a_token_knows_what_made_it"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="endpoint",
            name="endpoint_status_is_known",
        ),
        migrations.AddField(
            model_name="endpoint",
            name="canary",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="jobs.revision",
            ),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="canary_share",
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="canary_since",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="guard_error_share",
            field=models.FloatField(default=0.05, verbose_name="highest share of errors"),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="guard_min_requests",
            field=models.PositiveIntegerField(default=50, verbose_name="requests before judging"),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="guard_p95_ratio",
            field=models.FloatField(default=2.0, verbose_name="highest p95 against the stable revision"),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="log_mask",
            field=models.JSONField(default=list, verbose_name="masked inputs"),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="log_share",
            field=models.PositiveSmallIntegerField(default=0, verbose_name="share of requests kept"),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="max_replicas",
            field=models.PositiveSmallIntegerField(default=1, verbose_name="most workers"),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="min_replicas",
            field=models.PositiveSmallIntegerField(default=1, verbose_name="fewest workers"),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="previous",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="jobs.revision",
            ),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="rollout_note",
            field=models.TextField(blank=True),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="scale_down_after_s",
            field=models.PositiveIntegerField(default=60, verbose_name="remove workers after"),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="scale_up_after_s",
            field=models.PositiveIntegerField(default=5, verbose_name="add workers after"),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="shadow",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="jobs.revision",
            ),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="shadow_share",
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="target_concurrency",
            field=models.PositiveSmallIntegerField(default=8, verbose_name="requests at once per worker"),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="warm_hours",
            field=models.JSONField(default=list, verbose_name="kept warm"),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="zero_after_s",
            field=models.PositiveIntegerField(default=300, verbose_name="sleep after"),
        ),
        migrations.AlterField(
            model_name="endpoint",
            name="status",
            field=models.CharField(
                choices=[
                    ("starting", "Starting"),
                    ("live", "Live"),
                    ("asleep", "Asleep"),
                    ("failed", "Failed"),
                    ("stopped", "Stopped"),
                ],
                default="starting",
                max_length=10,
            ),
        ),
        migrations.AddConstraint(
            model_name="endpoint",
            constraint=models.CheckConstraint(
                condition=models.Q(("status__in", ["starting", "live", "asleep", "failed", "stopped"])),
                name="endpoint_status_is_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="endpoint",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("canary_share__lte", 10000), ("log_share__lte", 10000), ("shadow_share__lte", 10000)
                ),
                name="endpoint_shares_are_shares",
            ),
        ),
        migrations.AddConstraint(
            model_name="endpoint",
            constraint=models.CheckConstraint(
                condition=models.Q(("max_replicas__gte", 1), ("min_replicas__lte", models.F("max_replicas"))),
                name="endpoint_replicas_are_bounded",
            ),
        ),
        migrations.AddConstraint(
            model_name="endpoint",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("canary", None),
                    models.Q(("canary", models.F("current")), _negated=True),
                    _connector="OR",
                ),
                name="canary_is_not_the_current_revision",
            ),
        ),
    ]
