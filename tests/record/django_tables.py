"""Make the tables of two Django packages by their own migrations: `django_tables.py HOST PORT NAME USER`."""

import sys

import django
from django.conf import settings
from django.core.management import call_command

host, port, name, user = sys.argv[1:]
settings.configure(
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "fcm_django",
        "push_notifications",
    ],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": host,
            "PORT": port,
            "NAME": name,
            "USER": user,
        }
    },
    USE_TZ=True,
    FCM_DJANGO_SETTINGS={},
    PUSH_NOTIFICATIONS_SETTINGS={},
)
django.setup()
call_command("migrate", verbosity=0)
