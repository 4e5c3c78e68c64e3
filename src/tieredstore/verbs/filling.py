"""Files put in one by one, each visible under its own path as soon as it is whole.

For writers that write a file, read it back and write the next. To readers of the store the
artifact is absent (a pending mark says so) until the required files are all there. A ledger beside
the first tier's stages says what this filling has put in, so that another process may go on with
it, and which files are of an older generation, so that old and new are never taken together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from tieredstore.errors import (
    ArtifactChanged,
    ArtifactNotFound,
    PromoteFailed,
    TieredStoreError,
    TierUnavailable,
)
from tieredstore.manifest.artifact import Head, Recipe, new_generation, random_hex
from tieredstore.manifest.names import check_file
from tieredstore.manifest.records import FileRecord, Records, head_of
from tieredstore.mounted import alive, beneath
from tieredstore.mounted.filled import mark_filling, publish_filled
from tieredstore.mounted.staged import move_in
from tieredstore.moving.fetching import Copy
from tieredstore.moving.transfer import Transfer
from tieredstore.space.room import make_way
from tieredstore.tiers.chain import Chain
from tieredstore.verbs.direct import DirectTiers
from tieredstore.verbs.ledger import Ledger, Seen, stats
from tieredstore.verbs.promoting import Promotion

_TRIES: Final = 20


class Filling:
    """An artifact while its files are put in one by one.

    One that another process began, with the same recipe, is gone on with. After the last required
    file the next `put` begins anew.

    Parameters
    ----------
    chain : Chain
        The tiers; files go to the first and to every durable mounted one as they are put in, and
        to the other durable ones when the artifact is whole.
    name : str
        The artifact.
    required : sequence of str
        The files that make it whole.
    recipe : Recipe or None
        What it is made from.
    """

    def __init__(
        self, chain: Chain, name: str, required: Sequence[str], recipe: Recipe | None
    ) -> None:
        self._chain = chain
        self._name = name
        self._required = tuple(required)
        self._recipe = recipe
        self._mount = chain.first.backend.mount
        self._folder = chain.first.tier.layout.folder(name)
        self._ledger: Ledger | None = None
        self._sign: alive.Sign | None = None
        self._records: dict[str, FileRecord] = {}
        self._inodes: dict[str, int] = {}
        self._direct = DirectTiers(chain, name, self._required, recipe)
        self.complete = False

    @property
    def refused(self) -> dict[str, str]:
        """Tiers that keep what they have, made by another recipe, with the reason."""
        return self._direct.refused

    def temporary(self, file: str) -> Path:
        """A path to write a file to before it is put in: on the first tier's file system."""
        check_file(file)
        self._check_writable()
        os.close(self._mount.area("stage"))
        self._sign = self._sign or alive.Sign(self._mount.area(alive.AREA), f"fill-{random_hex(8)}")
        return Path(self._mount.area_path("stage", f"{self._sign.key}-{random_hex(8)}"))

    def put(self, file: str, written: Path) -> dict[str, str]:
        """Put one written file in, atomically, into the first tier and the durable mounted ones.

        Parameters
        ----------
        file : str
            Its name in the artifact.
        written : Path
            Where its bytes are, from `temporary`; the file is taken over.

        Returns
        -------
        dict
            Where it is visible now, by tier.

        Raises
        ------
        TierUnavailable
            When the first tier cannot be written.
        PromoteFailed
            With the last required file: the artifact is whole in the first tier, and a durable
            tier could not take it.
        """
        check_file(file)
        self._check_writable()
        record = self._measure(file, written)
        ledger = self._begun(file)
        self._records[file] = record
        self._inodes[file] = written.stat().st_ino
        ledger.add(record)
        ledger.write(self._mount, self._recipe)  # before the move: what is not there counts not
        mark_filling(self._mount, self._folder, ledger.generation, self._required)
        self._take(written.name, file)
        # Again: one that ended just then has lifted it, and must not stay seen with this file.
        mark_filling(self._mount, self._folder, ledger.generation, self._required)
        visible = os.path.join(self._mount.path, self._folder, file)
        places = {self._chain.first.tier.name: visible}
        places |= self._direct.put(record, ledger.generation, self._folder)
        if all(f in ledger.put for f in self._required):
            self._finish(ledger, ledger.put)
        return places

    def settle(self, required: Sequence[str] | None = None) -> bool:
        """Publish a filling whose missing files were written into its folder by hand.

        Parameters
        ----------
        required : sequence of str, optional
            The files that make it whole; those given at the beginning by default.

        Returns
        -------
        bool
            Whether it is whole now. Files that an older generation left do not count.
        """
        settled = False
        for _ in range(_TRIES):  # several that began at once leave a mark each
            mark = self._mount.pending(self._folder)
            if mark is None or mark.kind != "filling" or not mark.generation:
                return settled
            if self._ledger is None or self._ledger.generation != mark.generation:
                self._ledger = None
            if not self._settle(self._ledger or self._begin(), required or self._required):
                return False
            settled = True
        return False

    def _settle(self, ledger: Ledger, required: Sequence[str]) -> bool:
        now = self._stats(required)
        if not all(f in now and ledger.stale.get(f) != now[f] for f in required):
            return False
        self._check_writable()
        self._finish(ledger, [*ledger.put, *required])
        return True

    # -- the beginning --------------------------------------------------------------------------

    def _check_writable(self) -> None:
        tier = self._chain.first.tier
        if not tier.writable:
            raise TierUnavailable(f"tier {tier.name!r} is read-only: nothing can be written")

    def _begun(self, file: str) -> Ledger:
        """The ledger, with what others have put in since.

        Who puts in again what another has put in does not go on with that work, but begins anew:
        only files of its own count from then on.
        """
        ledger = self._ledger or self._begin()
        disk = Ledger.read(self._mount, ledger.generation, self._recipe)
        others = {**ledger.put, **(disk.put if disk else {})}
        rival = any(f in others and others[f] != ledger.put.get(f) for f in self._records)
        others = {f: s for f, s in others.items() if f not in self._records}
        if file not in others and not rival:
            now = self._stats(others)
            ledger.put.update({f: s for f, s in others.items() if now.get(f) == s})
            ledger.digests = {**(disk.digests if disk else {}), **ledger.digests}
            return ledger
        stale = {**ledger.stale, **others}
        own = {f: s for f, s in ledger.put.items() if f in self._records}
        self._ledger = ledger = Ledger(new_generation(), own, stale, ledger.digests)
        self._direct.forget()  # their marks are of the other generation
        if not own:
            self._direct.begin()
        return ledger

    def _begin(self) -> Ledger:
        self._mount.complete(self._folder)
        self._records, self.complete = {}, False
        self._direct.refused.clear()
        mark = self._mount.pending(self._folder)
        ledger = None
        if mark is not None and mark.kind == "filling" and mark.generation:
            ledger = Ledger.read(self._mount, mark.generation, self._recipe)
        if ledger is not None:
            now = self._stats(ledger.put)
            ledger.put = {f: s for f, s in ledger.put.items() if now.get(f) == s}
        if ledger is not None:
            self._direct.join(ledger.generation)
        else:
            ledger = Ledger(new_generation(), {}, self._older(pending=mark is not None))
            self._direct.begin()
        self._ledger = ledger
        return ledger

    def _older(self, *, pending: bool) -> dict[str, Seen]:
        """Files of something whole, or half replaced, that must not be taken for new ones."""
        there = self._stats(self._required)
        held = self._chain.first.held(self._name)
        if held is not None:
            held.close()
        whole = len(there) == len(self._required)
        return there if pending or held is not None or whole else {}

    def _stats(self, files: Iterable[str]) -> dict[str, Seen]:
        found = stats(self._mount, self._folder, files)
        return {f: (s.st_size, s.st_mtime_ns) for f, s in found.items()}

    # -- one file -------------------------------------------------------------------------------

    def _measure(self, file: str, written: Path) -> FileRecord:
        stat = written.stat()
        inside = os.path.relpath(written, self._mount.path)
        folder, name = beneath.split(inside.replace(os.sep, "/"))
        record = FileRecord(name, stat.st_size, stat.st_mode & 0o777, stat.st_mtime_ns)
        [found] = Transfer([Copy("", self._chain.first.backend, folder, None)]).move([record]).files
        return FileRecord(file, found.size, found.mode, found.mtime_ns, found.table)

    def _take(self, name: str, path: str) -> None:
        with (
            beneath.opened(self._mount.root()) as root,
            beneath.opened(self._mount.area("stage")) as area,
            beneath.opened(beneath.open_folder(root, self._folder)) as fd,
        ):
            with beneath.opened(beneath.open_file(area, name)) as file:
                os.fsync(file)
            if not move_in(area, name, fd, path):
                raise FileNotFoundError(f"{name}: was taken away before it was put in")

    # -- the end --------------------------------------------------------------------------------

    def _finish(self, ledger: Ledger, files: Iterable[str]) -> None:
        begun, last = ledger.generation, replace(ledger, generation=new_generation())
        last.write(self._mount, self._recipe)
        head, records = self._publish(ledger, last, sorted(set(files)))
        for each in (ledger, last):
            each.delete(self._mount)
        self._ledger, self._sign, self.complete = None, None, True
        make_way(self._chain, self._chain.first.tier, self._name)
        if head.generation != last.generation:
            self._direct.forget()  # who has published it completes those
        late = self._direct.late(self._direct.finish(begun, head, records))
        try:
            if late:
                Promotion(self._chain, self._name, late, replace=True).run()
        except (ArtifactNotFound, PromoteFailed):  # unless another has published since
            here = self._chain.first.tier.locate(self._name).head
            if here is not None and here.generation == head.generation:
                raise

    def _publish(self, ledger: Ledger, last: Ledger, files: Sequence[str]) -> tuple[Head, Records]:
        """Publish what lies there, or agree with what another has published meanwhile."""
        for _ in range(_TRIES):
            # A mark of its own takes over those that others have left, and hides what is looked at.
            mark_filling(self._mount, self._folder, last.generation, self._required)
            records = self._whole_records(ledger, files)
            head = head_of(records, self._recipe, generation=last.generation)
            if publish_filled(self._mount, self._folder, head, records):
                return head, records
            published = self._published()
            if published is not None:
                if _bytes_of(published[1]) == _bytes_of(records):
                    return published
                break
        raise ArtifactChanged(f"{self._name}: others put its files in too; prepare it again")

    def _published(self) -> tuple[Head, Records] | None:
        """What is published in the first tier, unless somebody is at it."""
        with suppress(OSError, TieredStoreError):
            held = self._mount.hold(self._folder)
            if held is not None:
                with closing(held):
                    return held.head, self._mount.records_of(held)
        return None

    def _whole_records(self, ledger: Ledger, files: Sequence[str]) -> Records:
        """Records of all files as they lie there; what this process has not measured is read.

        Raises
        ------
        ArtifactChanged
            When a file that was put in is another one now.
        """
        now = stats(self._mount, self._folder, files)
        known, unknown = [], []
        for file in files:
            record, stat = self._records.get(file), now.get(file)
            if stat is None:
                raise self._replaced(file)
            if record is not None and self._is_own(record, stat):
                known.append(record)
            else:
                unknown.append(
                    FileRecord(file, stat.st_size, stat.st_mode & 0o777, stat.st_mtime_ns)
                )
        copy = Copy("", self._chain.first.backend, self._folder, None)
        found = Transfer([copy]).move(unknown).files
        for each in found:  # equal bytes do no harm
            if not ledger.counts(each):
                raise self._replaced(each.path)
        return Records.of([*known, *found])

    def _is_own(self, record: FileRecord, stat: os.stat_result) -> bool:
        seen = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        return seen == (record.size, record.mtime_ns, self._inodes[record.path])

    def _replaced(self, file: str) -> ArtifactChanged:
        return ArtifactChanged(
            f"{self._name}: {file} was replaced by another while files were put in; "
            f"prepare it again"
        )


def _bytes_of(records: Records) -> dict[str, tuple[int, bytes]]:
    return {path: (file.size, file.table) for path, file in records.files.items()}
