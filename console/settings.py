"""One settings file for every place Tauon runs. Safe defaults; `manage.py check --deploy` refuses the rest."""

from __future__ import annotations

import os

from csp.constants import NONE, SELF
from django.utils.translation import gettext_lazy as _

from console import embedded, env

# -- 1. Where we are -------------------------------------------------------------------------------------------
BASE_DIR = env.BASE_DIR
VAR_DIR = env.var_dir()
TESTING = env.flag("TAUON_TESTING", default=False)
DEBUG = env.flag("TAUON_DEBUG", default=False)
SECRET_KEY = env.secret("TAUON_SECRET_KEY", size_bytes=50)
MASTER_KEY = env.secret("TAUON_MASTER_KEY")  # wraps every tenant's data key; losing it loses their data
ALLOWED_HOSTS = env.words("TAUON_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
BASE_URL = os.environ.get("TAUON_URL", "http://127.0.0.1:8000").rstrip("/")
# hosts within a private network that webhooks may reach all the same
WEBHOOK_HOSTS = env.words("TAUON_WEBHOOK_HOSTS", [])
GATEWAY_URL = os.environ.get("TAUON_GATEWAY_URL", "http://127.0.0.1:8001").rstrip("/")
HTTPS = BASE_URL.startswith("https://")
CSRF_TRUSTED_ORIGINS = [BASE_URL]

# -- 2. Apps, uphill -------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "channels",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_filters",
    "guardian",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "django_htmx",
    "csp",
    "django_prometheus",
    "tenants",
    "billing",
    "jobs",
    "console",
]
MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "console.middleware.RequestIdMiddleware",
    "console.middleware.AddressMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "console.middleware.ActorMiddleware",
    "console.middleware.SignedInMiddleware",
    "console.middleware.IdempotencyMiddleware",
    "console.middleware.RefusalMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]
ROOT_URLCONF = "console.urls"
ASGI_APPLICATION = "console.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "django.template.context_processors.i18n",
                "console.context.shell",
            ],
        },
    }
]

# -- 3. Database, Redis, files ---------------------------------------------------------------------------------
embedded.configure_urls()
_redis_url = env.url("REDIS_URL", {"redis", "rediss", "unix"}) or ""
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        **env.database("DATABASE_URL"),
        "CONN_MAX_AGE": 0,  # threads of an ASGI server come and go; a kept connection would outlive its thread
    }
}
REDIS_URL = _redis_url
# channels and redis-py read unix://path?db=1; Celery calls the same thing redis+socket://path?virtual_host=1
CELERY_BROKER_URL = (
    _redis_url.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
    if _redis_url.startswith("unix://")
    else _redis_url
)
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": _redis_url}}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {
            # an idle socket must live: no read time-out, and a pool as large as the sockets we may hold
            "hosts": [{"address": _redis_url, "socket_timeout": None, "max_connections": 5000}],
            "capacity": 1000,
        },
    }
}
STORAGES = {
    "default": {
        "BACKEND": os.environ.get("TAUON_STORAGE", "django.core.files.storage.FileSystemStorage"),
        "OPTIONS": {"location": VAR_DIR / "storage", "file_permissions_mode": 0o600}
        if "TAUON_STORAGE" not in os.environ
        else env.options("TAUON_STORAGE_OPTIONS"),
    },
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG or TESTING
        else "console.static_files.Storage"
    },
}
RUNS_DIR = VAR_DIR / "runs"  # working folders of training attempts; the truth is in storage and the database
REPLICAS_DIR = VAR_DIR / "replicas"  # opened bundles of model workers
USAGE_DIR = VAR_DIR / "usage"  # the gateway's write-ahead log of answered requests
REQUESTS_DIR = VAR_DIR / "requests"  # the request log on its way into the database, for seconds
STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = DEBUG or TESTING
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MAX_UPLOAD_BYTES = env.integer("TAUON_MAX_UPLOAD_BYTES", 512 * 1024 * 1024, at_least=1)
ARCHIVE_GRACE_DAYS = env.integer("TAUON_ARCHIVE_GRACE_DAYS", 30)  # then files of what is archived go
MAX_UNPACKED_BYTES = env.integer("TAUON_MAX_UNPACKED_BYTES", 2 * 1024 * 1024 * 1024, at_least=1)
DATA_UPLOAD_MAX_MEMORY_SIZE = 5 * 1024 * 1024

# -- 4. People and login ---------------------------------------------------------------------------------------
AUTH_USER_MODEL = "tenants.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
    "guardian.backends.ObjectPermissionBackend",
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher"]
if TESTING:
    PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast, for made-up people only
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
GUARDIAN_GET_CONTENT_TYPE = "guardian.ctypes.get_default_content_type"
ANONYMOUS_USER_NAME = None
GUARDIAN_MONKEY_PATCH_USER = False
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_EMAIL_VERIFICATION = os.environ.get("TAUON_EMAIL_VERIFICATION", "optional")
ACCOUNT_EMAIL_SUBJECT_PREFIX = "[Tauon] "
ACCOUNT_ADAPTER = "tenants.accounts.AccountAdapter"
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_SESSION_REMEMBER = True
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = DEBUG
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "console:overview"
LOGOUT_REDIRECT_URL = "account_login"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_SSL_REDIRECT = env.flag("TAUON_SSL_REDIRECT", default=HTTPS)
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SECURE_REFERRER_POLICY = "same-origin"
if env.flag("TAUON_BEHIND_PROXY", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:", "blob:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "manifest-src": [SELF],
    }
}

# -- 5. API ----------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["console.api.BearerToken", "console.api.Session"],
    "DEFAULT_PERMISSION_CLASSES": ["console.api.SignedIn"],
    "DEFAULT_PAGINATION_CLASS": "console.api.Cursor",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["console.parsers.Json"],  # uploads name their own
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_THROTTLE_CLASSES": ["console.api.ActorThrottle"],
    "DEFAULT_THROTTLE_RATES": {"actor": os.environ.get("TAUON_API_RATE", "1200/min")},
    "EXCEPTION_HANDLER": "console.api.problem_handler",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Tauon API",
    "DESCRIPTION": "Bring data, train, compress, publish, and see what it cost.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "ENUM_NAME_OVERRIDES": {
        "JobKind": "jobs.states.JobKind",
        "JobStatus": "jobs.states.JobStatus",
        "EndpointStatus": "jobs.states.EndpointStatus",
        "InvoiceStatus": "billing.states.InvoiceStatus",
        "AlertMetric": "jobs.models.traffic.AlertMetric",
    },
}

# -- 6. Work: Celery is transport only, rows are the queue -----------------------------------------------------
OUTBOX_MEMORY = TESTING  # tests drain messages by hand; see tenants.outbox
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 24 * 3600}
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
LOCAL_PROCESSES = env.integer("TAUON_LOCAL_PROCESSES", max(2, os.cpu_count() or 2), at_least=1)
LOCAL_GPUS = env.integer("TAUON_LOCAL_GPUS", -1, at_least=-1)  # -1: ask the machine
WARM_START = env.flag(
    "TAUON_WARM_START", default=True
)  # False saves 250 MB, and each run starts seconds later
SOCKETS_PER_ACTOR = env.integer("TAUON_SOCKETS_PER_ACTOR", 50, at_least=1)  # live pages open at once
LEASE_S = env.integer("TAUON_LEASE_S", 15, at_least=2)
BEAT_S = env.integer("TAUON_BEAT_S", 5, at_least=1)
CURRENCY = os.environ.get("TAUON_CURRENCY", "USD")
SELLER_NAME = os.environ.get("TAUON_SELLER", "Tauon")  # who the invoices are from
# cards through Stripe (extra [stripe]); without a key, staff book payments by hand
STRIPE_KEY = os.environ.get("TAUON_STRIPE_KEY", "")
STRIPE_WEBHOOK_SECRET = os.environ.get("TAUON_STRIPE_WEBHOOK_SECRET", "")
STRIPE_API = os.environ.get("TAUON_STRIPE_API", "")  # another address of the API, for tests

# -- 7. Mail, language, time -----------------------------------------------------------------------------------
EMAIL_BACKEND = os.environ.get("TAUON_EMAIL_BACKEND", "django.core.mail.backends.console.EmailBackend")
EMAIL_HOST = os.environ.get("TAUON_EMAIL_HOST", "localhost")
EMAIL_PORT = env.integer("TAUON_EMAIL_PORT", 25)
EMAIL_HOST_USER = os.environ.get("TAUON_EMAIL_USER", "")
EMAIL_HOST_PASSWORD = os.environ.get("TAUON_EMAIL_PASSWORD", "")
EMAIL_USE_TLS = env.flag("TAUON_EMAIL_TLS", default=False)
DEFAULT_FROM_EMAIL = os.environ.get("TAUON_EMAIL_FROM", "Tauon <tauon@localhost>")
LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("zh-hans", "简体中文")]
LOCALE_PATHS = [BASE_DIR / "console" / "locale"]
FORMAT_MODULE_PATH = ["console.locale"]
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"

# -- 8. Logs ---------------------------------------------------------------------------------------------------
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "console.logs.LineFormatter"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "WARNING" if TESTING else "INFO"},
    "loggers": {
        "daphne": {"level": "WARNING"},
        "django.channels.server": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
    },
}
PROMETHEUS_EXPORT_MIGRATIONS = False
