"""``tiered://``: the store as an fsspec filesystem. What is exported is all that others may use."""

from tieredstore.filesystem.fs import TieredFileSystem
from tieredstore.filesystem.shortcuts import local_path, open_url

__all__ = ["TieredFileSystem", "local_path", "open_url"]
