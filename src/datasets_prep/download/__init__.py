"""Datasets fetched whole, from any source: resumed, extracted, verified, published at once."""

from __future__ import annotations

from datasets_prep.download.options import Downloaded, DownloadOptions
from datasets_prep.download.running import download

__all__ = ["DownloadOptions", "Downloaded", "download"]
