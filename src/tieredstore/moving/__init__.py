"""Bytes on their way: verified, resumed, in parallel, in shards or as they are."""
