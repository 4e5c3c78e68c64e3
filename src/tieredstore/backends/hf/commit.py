"""Changes of a repository: each is one commit on a parent that was looked at, or none at all."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from tieredstore.backend import Expected
from tieredstore.backends.hf.api import Entry, HubApi, Operation, operation
from tieredstore.backends.hf.reader import Files
from tieredstore.backends.hf.upload import MAX_REGULAR, Addition
from tieredstore.errors import CorruptData, ManifestError
from tieredstore.keyed import check_expected, damaged_mark
from tieredstore.manifest.artifact import HEAD, MAX_HEAD, RECORDS, SHARDS, Head
from tieredstore.manifest.records import Records

Plan = Callable[[str], Sequence[Operation] | None]
"""Given the parent commit: what is to be committed on it, or ``None`` where nothing is."""
_EACH: Final = 0.005  # seconds that the Hub may take for each change of a commit


class Folder:
    """One artifact's folder, as it is at a commit, and how it is changed.

    Parameters
    ----------
    api, files : HubApi, Files
        The repository.
    folder : str
        The artifact's folder below the tier's root.
    records_of : callable
        Reads the records of a head at a commit.
    """

    def __init__(
        self,
        api: HubApi,
        files: Files,
        folder: str,
        records_of: Callable[[str, Head], Records],
    ) -> None:
        self._api = api
        self._files = files
        self._folder = folder
        self._records_of = records_of
        self.where = f"{api.repo.place}/{folder}"

    def publish(
        self,
        head: Head,
        names: Iterable[str],
        additions: Mapping[str, Addition],
        expected: Expected,
    ) -> None:
        """Commit a generation's files, and take away what only the one before had.

        Parameters
        ----------
        head : Head
            The generation.
        names : iterable of str
            Its files, of which none may be missing afterwards.
        additions : mapping
            What was staged, by path in the repository.
        expected : str, None or ANY_HEAD
            Tag of the head that is to be replaced.

        Raises
        ------
        HeadConflict
            When the head that lies there is not the expected one.
        CorruptData
            When a file was neither staged nor is there.
        """
        wanted = self._paths(names)
        tried = False

        def plan(parent: str) -> Sequence[Operation] | None:
            nonlocal tried
            found = self._head_bytes(parent)
            again = self._generation(found) == head.generation
            if tried and again:
                return None  # an attempt without an answer has come through
            check_expected(expected, found, f"{self.where}/{HEAD}")
            tried = True
            there = self._tree(parent)
            kept = wanted & there.keys() if again else set()
            missing = sorted(wanted - additions.keys() - kept)
            if missing:
                raise CorruptData(f"{self.where}: {missing[0]!r} was not staged")
            old = (self._named(parent, found, there) or ()) if found is not None else ()
            gone = [p for p in old if p in there and p not in additions and p not in kept]
            new = [a for p, a in additions.items() if not _same(there.get(p), a)]
            return [*map(_delete, gone), *map(_add, new)]

        self._commit(f"Publish {self._folder} {head.generation}", plan)

    def remove(self, head: Head) -> None:
        """Commit that a generation's files are gone; nothing happens where another one is."""

        def plan(parent: str) -> Sequence[Operation] | None:
            found = self._head_bytes(parent)
            if self._generation(found) != head.generation:
                return None
            there = self._tree(parent)
            named = self._named(parent, found, there)
            return [_delete(p) for p in there if named is None or p in named]

        self._commit(f"Remove {self._folder} {head.generation}", plan)

    def set_aside(self, head: Head) -> str:
        """Commit that a generation's files lie elsewhere; says where."""
        mark = damaged_mark(head.generation)
        aside = mark.removesuffix(".json")

        def plan(parent: str) -> Sequence[Operation] | None:
            found = self._head_bytes(parent)
            if self._generation(found) != head.generation:
                return None
            there = self._tree(parent)
            named = self._named(parent, found, there)
            moved = [p for p in there if named is None or p in named]
            lines = []
            for path in moved:
                inside = path.removeprefix(f"{self._api.repo.path(self._folder)}/")
                target = mark if inside == HEAD else f"{aside}/{inside}"
                lines += [_delete(path), self._moved(parent, there[path], target)]
            return lines

        self._commit(f"Set {self._folder} {head.generation} aside: damaged", plan)
        return f"{self._api.repo.place}/{aside}"

    # -- what is there --------------------------------------------------------------------------

    def _head_bytes(self, parent: str) -> bytes | None:
        try:
            return self._files.read(f"{self._folder}/{HEAD}", parent, MAX_HEAD)[0]
        except FileNotFoundError:
            return None

    def _generation(self, data: bytes | None) -> str:
        try:
            return "" if data is None else Head.parse(data, self.where).generation
        except ManifestError:
            return ""

    def _tree(self, parent: str) -> dict[str, Entry]:
        return {e.path: e for e in self._api.tree(parent, self._folder)}

    def _named(self, parent: str, found: bytes | None, there: Iterable[str]) -> set[str] | None:
        """What the manifest names, in the repository; ``None`` where that cannot be read.

        What lies there under the names of shards is the packed copy's.
        """
        assert found is not None
        try:
            head = Head.parse(found, self.where)
            named = self._paths([*self._records_of(parent, head).files, RECORDS, HEAD])
        except (ManifestError, CorruptData):
            return None
        shards = self._api.repo.path(f"{self._folder}/{SHARDS}")
        return named | {path for path in there if path.startswith(shards)}

    def _paths(self, names: Iterable[str]) -> set[str]:
        return {self._api.repo.path(f"{self._folder}/{name}") for name in names}

    def _moved(self, parent: str, entry: Entry, target: str) -> Operation:
        """The file at another place; the bytes of a large one stay where they are."""
        path = self._api.repo.path(target)
        if entry.sha256:
            return _add(Addition(path, entry.size, entry.sha256))
        below = self._api.repo.below(entry.path)
        return _add(Addition(path, entry.size, content=self._files.raw(below, parent, MAX_REGULAR)))

    def _commit(self, summary: str, plan: Plan) -> None:
        """Commit what is planned, planned anew for each parent."""

        def once(_: float) -> None:
            parent = self._api.tip()
            operations = plan(parent)
            if operations:
                timeout = self._api.client.timeout + _EACH * len(operations)
                self._api.commit(parent, summary, operations, timeout)

        self._api.client.again(self.where, once)


def _same(there: Entry | None, addition: Addition) -> bool:
    if there is None:
        return False
    if addition.sha256 or there.sha256:
        return there.sha256 == addition.sha256
    return there.blob == addition.blob


def _delete(path: str) -> Operation:
    return operation("deletedFile", path=path)


def _add(addition: Addition) -> Operation:
    path, sha256 = addition.path, addition.sha256
    if sha256:
        return operation("lfsFile", path=path, algo="sha256", oid=sha256, size=addition.size)
    content = b64encode(addition.content).decode()
    return operation("file", path=path, content=content, encoding="base64")
