import django.db.models.deletion
from django.db import migrations, models

METRICS = [('error_share', 'Share of errors (%)'), ('p95_ms', 'p95 latency (ms)'), ('p99_ms', 'p99 latency (ms)'), ('request_rate', 'Requests a second'), ('waiting', 'Requests waiting'), ('replicas', 'Workers ready'), ('class_share', 'Share of a class (%)'), ('drift', 'Drift of predictions (PSI)'), ('input_drift', 'Drift of inputs (highest PSI)')]


class Migration(migrations.Migration):

    dependencies = [
        ('jobs', '0011_requests_may_be_logged'),
    ]

    operations = [
        migrations.CreateModel(
            name='InputCount',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('hour', models.DateTimeField()),
                ('rows', models.PositiveBigIntegerField(default=0)),
                ('counts', models.JSONField(default=list)),
                ('revision', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='input_counts', to='jobs.revision')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('revision', 'hour'), name='inputs_counted_by_hour')],
            },
        ),
        migrations.RemoveConstraint(
            model_name='alertrule',
            name='alert_metric_is_known',
        ),
        migrations.AlterField(
            model_name='alertrule',
            name='metric',
            field=models.CharField(choices=METRICS, max_length=16, verbose_name='number'),
        ),
        migrations.AddConstraint(
            model_name='alertrule',
            constraint=models.CheckConstraint(condition=models.Q(('metric__in', [name for name, _label in METRICS])), name='alert_metric_is_known'),
        ),
    ]
