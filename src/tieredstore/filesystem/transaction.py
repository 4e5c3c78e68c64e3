"""Transactions: files that are put in together when a block ends, or not at all."""

from __future__ import annotations

from typing import Any

from fsspec.transaction import Transaction

from tieredstore.filesystem.naming import Spot
from tieredstore.filesystem.writing import Writing
from tieredstore.mounted import beneath


class TieredTransaction(Transaction):  # type: ignore[misc]
    """The files of one block: flushed to the disk at once, each artifact changed at once."""

    def complete(self, commit: bool = True) -> None:
        """Put the files in, or drop them all.

        Parameters
        ----------
        commit : bool
            Put them in; as fsspec calls it.
        """
        fs: Any = self.fs
        files: list[Writing] = list(self.files)
        self.files.clear()
        try:
            if commit:
                _commit(fs, files)
        finally:
            for file in files:
                file.discard()
            fs._intrans = False  # noqa: SLF001 - fsspec's own, as its transaction ends it
            fs._transaction = None  # noqa: SLF001


def _commit(fs: Any, files: list[Writing]) -> None:
    ready = [(file.spot, file.finished(durable=False)) for file in files if not file.dropped]
    if ready:
        mount = files[0].stages.mount
        with beneath.opened(mount.area("stage")) as stage:
            beneath.syncfs(stage)
    sets: dict[str, tuple[Spot, list[Any]]] = {}
    for spot, put in ready:
        sets.setdefault(spot.name, (spot, []))[1].append(put)
    for spot, puts in sets.values():
        fs.changing.put(spot, puts)
        if not spot.single:
            fs.changing.sum_up(spot.name)
