"""The inference data plane: `uvicorn jobs.gateway:app`. Raw ASGI, no Django anywhere in this package.

It is told what to do by one environment: REDIS_URL (where the routing snapshot is), TAUON_VAR (its folder
`usage` takes the write-ahead log, `requests` what a scribe keeps) and the limits named in `jobs.gateway.config`.
"""

from jobs.gateway.app import Gateway

app = Gateway()

__all__ = ["Gateway", "app"]
