from django.db import migrations, models

REASONS = [
    ('', ''),
    ('by_user', 'Stopped by a person.'),
    ('time_limit', 'The time limit of the job was reached.'),
    ('spend_limit', 'The spend limit of the job was reached.'),
    ('budget', "The tenant's budget was reached."),
    ('bad_spec', 'The engine could not use the spec.'),
    ('bad_data', 'The data does not fit the recipe.'),
    ('diverged', 'The loss is no longer a number. Try a smaller learning rate.'),
    ('out_of_memory', 'Out of memory. Try a smaller batch size.'),
    ('disk_full', 'The disk is full. Free some space and run it again.'),
    ('stalled', 'No step was finished for too long: a process or a machine hung.'),
    ('killed', 'A training process was killed from outside; memory may have run out.'),
    ('crashed', 'A training process crashed.'),
    ('worker_lost', 'The worker that ran this was lost.'),
    ('preempted', 'The machine was needed or shut down; the job goes on from its checkpoint.'),
    ('too_many_attempts', 'It was lost too many times and is not tried again.'),
]


class Migration(migrations.Migration):
    dependencies = [("jobs", "0003_endpoints_are_watched")]

    operations = [
        migrations.AlterField(
            model_name=name,
            name="reason",
            field=models.CharField(blank=True, choices=REASONS, default="", max_length=24),
        )
        for name in ("attempt", "job")
    ]
