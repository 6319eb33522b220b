from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('jobs', '0005_endpoints_have_keys'),
    ]

    operations = [
        migrations.AddField(
            model_name='datasetversion',
            name='files_deleted_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
