import django.db.models.functions.text
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('jobs', '0012_inputs_are_counted'),
    ]

    operations = [
        migrations.AddField(
            model_name='model',
            name='archived_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='modelversion',
            name='archived_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='modelversion',
            name='files_deleted_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.RemoveConstraint(
            model_name='model',
            name='one_model_per_name_in_a_tenant',
        ),
        migrations.AddConstraint(
            model_name='model',
            constraint=models.UniqueConstraint(
                models.F('tenant'),
                django.db.models.functions.text.Lower('name'),
                condition=models.Q(('archived_at', None)),
                name='one_model_per_name_in_a_tenant',
            ),
        ),
    ]
