"""Vocabularies of tiktoken's as artifacts, for machines without internet.

tiktoken names each file it needs and the sha256 that it must have. It has no way to be handed a
file, so while an encoding loads, its two reading functions are replaced: one that tells the sha256,
and one that would download. What the store has is used only when it has that sha256.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from datasets_prep.tokenizers.ranks import quick
from tieredstore import TieredStoreError

if TYPE_CHECKING:
    from tieredstore import TieredStore

_LOCK: Final = threading.Lock()  # tiktoken's functions are the process's own
_QUICK: Final = threading.Lock()


def artifact(name: str) -> str:
    """The name of the artifact with the vocabulary of an encoding."""
    return f"tiktoken-{name}"


@contextmanager
def reads_quickly() -> Iterator[None]:
    """While this lasts, tiktoken reads GPT-2's vocabulary in the way of `ranks`."""
    import tiktoken.load as loading
    import tiktoken_ext.openai_public as public

    def read(url: str, expected_hash: str | None) -> bytes:
        data: bytes = loading.read_file_cached(url, expected_hash)  # whatever that is by then
        return data

    ranks_of = quick(loading.data_gym_to_mergeable_bpe_ranks, read)
    with _QUICK, _replaced(public, data_gym_to_mergeable_bpe_ranks=ranks_of):
        yield


@contextmanager
def reads_from(store: TieredStore, name: str) -> Iterator[None]:
    """While this lasts, tiktoken takes what its cache lacks from the store, if it is there."""
    import tiktoken.load as loading

    expected: dict[str, str | None] = {}
    cached, download = loading.read_file_cached, loading.read_file

    def noting(url: str, expected_hash: str | None = None) -> bytes:
        expected[url] = expected_hash
        data: bytes = cached(url, expected_hash)
        return data

    def reading(url: str) -> bytes:
        data = _from_store(store, name, url)
        if data is not None and hashlib.sha256(data).hexdigest() == expected.get(url):
            return data
        fetched: bytes = download(url)
        return fetched

    with _LOCK, _replaced(loading, read_file_cached=noting, read_file=reading):
        yield


def files_of(name: str) -> dict[str, bytes]:
    """The files of an encoding's vocabulary, as tiktoken reads and verifies them."""
    import tiktoken
    import tiktoken.load as loading
    from tiktoken import registry

    found: dict[str, bytes] = {}
    cached = loading.read_file_cached

    def noting(url: str, expected_hash: str | None = None) -> bytes:
        found[_file(url)] = cached(url, expected_hash)
        return found[_file(url)]

    tiktoken.list_encoding_names()  # fills the registry
    with _LOCK, _replaced(loading, read_file_cached=noting):
        (registry.ENCODING_CONSTRUCTORS or {})[name]()
    return found


def _from_store(store: TieredStore, name: str, url: str) -> bytes | None:
    try:
        with store.restore(artifact(name)) as got:
            return (got.path / _file(url)).read_bytes()
    except (TieredStoreError, OSError):
        return None  # then it is downloaded, or that fails and says so


def _file(url: str) -> str:
    return url.rpartition("/")[2]


@contextmanager
def _replaced(module: Any, **functions: Any) -> Iterator[None]:
    usual = {name: getattr(module, name) for name in functions}
    for name, function in functions.items():
        setattr(module, name, function)
    try:
        yield
    finally:
        for name, function in usual.items():
            setattr(module, name, function)
