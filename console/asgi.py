"""HTTP and websockets, served by daphne."""

from __future__ import annotations

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
http = get_asgi_application()

from console.bodies import bounded  # noqa: E402
from jobs.live import websocket_urlpatterns  # noqa: E402  needs the app registry

application = ProtocolTypeRouter(
    {
        "http": bounded(http),
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
    }
)
