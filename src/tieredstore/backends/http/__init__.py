"""Web servers, to read from; the backend itself is in ``backend.py``."""

from tieredstore.backends.http.backend import HttpBackend

__all__ = ["HttpBackend"]
