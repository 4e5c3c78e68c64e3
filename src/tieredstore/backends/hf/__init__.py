"""The Hugging Face Hub; the backend itself is in ``backend.py``."""

from tieredstore.backends.hf.backend import HubBackend

__all__ = ["HubBackend"]
