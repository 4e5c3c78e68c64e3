"""S3 and whatever speaks its protocol; the backend itself is in ``backend.py``."""

from tieredstore.backends.s3.backend import S3Backend

__all__ = ["S3Backend"]
