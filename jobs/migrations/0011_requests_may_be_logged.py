import django.db.models.deletion
import django.utils.timezone
import tenants.models.base
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('jobs', '0010_jobs_predict_over_datasets'),
        ('tenants', '0003_a_token_knows_what_made_it'),
    ]

    operations = [
        migrations.AddField(
            model_name='endpoint',
            name='log_percent',
            field=models.FloatField(default=0.0, verbose_name='share of requests kept'),
        ),
        migrations.AddField(
            model_name='endpoint',
            name='log_days',
            field=models.PositiveSmallIntegerField(default=7, verbose_name='days kept'),
        ),
        migrations.AddField(
            model_name='endpoint',
            name='log_masks',
            field=models.JSONField(default=list, verbose_name='hidden inputs'),
        ),
        migrations.AddField(
            model_name='endpoint',
            name='log_mask_texts',
            field=models.BooleanField(default=True, verbose_name='addresses and long numbers hidden'),
        ),
        migrations.AddConstraint(
            model_name='endpoint',
            constraint=models.CheckConstraint(condition=models.Q(('log_days__gte', 1), ('log_percent__gte', 0), ('log_percent__lte', 100)), name='endpoint_log_is_a_share_for_some_days'),
        ),
        migrations.CreateModel(
            name='LoggedRequest',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(db_index=True, default=django.utils.timezone.now, editable=False)),
                ('public_id', tenants.models.base.PublicIdField('lrq')),
                ('at', models.DateTimeField()),
                ('request_id', models.CharField(max_length=64)),
                ('revision', models.PositiveIntegerField()),
                ('token', models.CharField(blank=True, max_length=40)),
                ('status', models.PositiveSmallIntegerField()),
                ('us', models.PositiveBigIntegerField()),
                ('rows', models.PositiveIntegerField(default=0)),
                ('label', models.CharField(blank=True, max_length=200)),
                ('sealed', models.BinaryField()),
                ('source', models.CharField(max_length=80, unique=True)),
                ('endpoint', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='logged_requests', to='jobs.endpoint')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
            ],
            options={
                'ordering': ['-at', '-pk'],
                'indexes': [models.Index(fields=['endpoint', '-at'], name='requests_of_an_endpoint')],
            },
        ),
        migrations.CreateModel(
            name='RequestLogGap',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField()),
                ('count', models.PositiveIntegerField()),
                ('source', models.CharField(max_length=80, unique=True)),
                ('endpoint', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='log_gaps', to='jobs.endpoint')),
            ],
            options={
                'indexes': [models.Index(fields=['endpoint', 'at'], name='gaps_of_an_endpoint')],
            },
        ),
    ]
