"""One download: what is there already, what is fetched, extracted and verified, what is published.

All bytes move as tiers of a store do: the source is one, and so is where an archive lies meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, cast

from datasets_prep.download.archives.kinds import HEAD
from datasets_prep.download.archives.rules import Limits
from datasets_prep.download.checks import SPARE, check_no_page, check_writable, free_of
from datasets_prep.download.extraction import extract, kind_of, seeks
from datasets_prep.download.options import Downloaded, DownloadOptions, plain_url
from datasets_prep.download.standing import Standing
from datasets_prep.download.summing import Summed
from datasets_prep.download.telling import Telling, shown
from datasets_prep.download.verifying import Verifier
from datasets_prep.errors import DownloadError
from datasets_prep.places import place_of
from tieredstore import (
    Adoption,
    ArtifactNotFound,
    Build,
    Got,
    SourceFile,
    SourceFiles,
    Tier,
    TieredStore,
    Unsupported,
    local_tier,
    open_source,
    open_store,
)

PREPARER: Final = "download"
_ARCHIVE: Final = "{name}.archive"  # what an archive is called until it is extracted


def run(options: DownloadOptions, telling: Telling) -> Downloaded:
    """See `datasets_prep.download`."""
    return _Download(options, telling).run()


class _Download:
    """One download; state of its own."""

    def __init__(self, options: DownloadOptions, telling: Telling) -> None:
        self._options = options
        self._telling = telling
        self._verifier = Verifier(options.spec, telling, compares=options.verify)
        self._store, self._name, self._folder = _destination(options, telling)

    def run(self) -> Downloaded:
        recipe: dict[str, object] = {"preparer": PREPARER, "options": self._asked()}
        standing = Standing(self._store, self._name, self._folder, self._verifier)
        if not self._options.force:
            got = standing.look(recipe)
            if got is not None:
                self._telling.line(f"✅ Already there: {got.path}")
                return self._done(got, hit=True)
        source = self._opened()
        files = self._files(source)
        size = sum(f.size for f in files)
        at = f" at {source.revision}" if source.revision else ""
        self._telling.line(f"📥 Downloading {source.shown}{at}: {len(files)} files, {shown(size)}")
        check_writable(self._folder)
        recipe["inputs"] = {f.path: f.sha256 or f.tag for f in files[:1] if len(files) == 1}
        kind = self._kind(source, files)
        if kind:
            self._unpack(source, files[0], kind, recipe)
        else:
            self._copy(source, files, recipe)
        return self._done(self._keep(), hit=False)

    # -- what is asked for ----------------------------------------------------------------------

    def _asked(self) -> dict[str, object]:
        """What tells one download from another, without credentials."""
        options = self._options
        where = plain_url(options.url) if options.url else options.location
        if options.local_path:
            where = str(Path(options.local_path).expanduser().resolve())
        return {"source": where, "extract": options.extract}

    def _opened(self) -> SourceFiles:
        try:
            return open_source(self._options.location)
        except FileNotFoundError as error:
            raise DownloadError(
                f"{error.filename or self._options.local_path}: not there"
            ) from None

    def _files(self, source: SourceFiles) -> list[SourceFile]:
        try:
            files = source.files()
        except FileNotFoundError:
            raise DownloadError(f"{source.shown}: no such file") from None
        except Unsupported as error:
            raise DownloadError(f"{error}; give the address of one file") from None
        if not files:
            raise DownloadError(f"{source.shown}: no files")
        if self._options.sha256 and len(files) > 1:
            raise DownloadError(f"{source.shown}: {len(files)} files, --sha256 is of one")
        return files

    def _kind(self, source: SourceFiles, files: list[SourceFile]) -> str:
        """What archive the one file is; empty where nothing is to be extracted."""
        if len(files) > 1:
            return ""
        [file] = files
        where = source.shown
        with source.open(file.path) as opened:
            head = opened.read(min(HEAD, file.size))
        check_no_page(head, file.path, where, extract=self._options.extract)
        return kind_of(head, file.path) if self._options.extract else ""

    # -- one archive ----------------------------------------------------------------------------

    def _unpack(
        self, source: SourceFiles, file: SourceFile, kind: str, recipe: dict[str, object]
    ) -> None:
        fetched = not self._options.local_path and (seeks(kind) or source.takes_ranges(file.path))
        archives = self._archives(source)
        free = self._tell_room(archives, file.size if fetched else 0, file.size)
        limits = self._options.limits or Limits()
        most = max(free - SPARE - (file.size if fetched else 0), file.size)
        limits = replace(limits, size=min(limits.size, most))
        with self._store.create(self._name, recipe) as stage:
            stage.reserve(file.size)
            unpack = partial(self._extract, stage, limits)
            if fetched:
                self._fetch_and(unpack, archives, file, kind)
            else:
                self._straight(unpack, source, file, kind)
            self._verifier.check(stage.path, stage.written)
            stage.facts.update({"archive": file.path, "revision": source.revision})
        if fetched and not self._options.keep_archive:
            archives.remove(self._archive, [archives.tiers[0].name])

    def _tell_room(self, archives: TieredStore, archive: int, extracted: int) -> int:
        """Say in figures what is needed; the store refuses what does not fit."""
        free = free_of(self._folder)
        needed = f"{shown(extracted)} or more for what is extracted"
        if archive:
            needed = f"{shown(archive)} for the archive, {needed}"
        said = f"{shown(free)} are free"
        if self._options.temp_dir is not None and archive:
            there = free_of(Path(archives.tiers[0].backend.place))
            said = f"{shown(there)} are free in {self._options.temp_dir}, {shown(free)} beside it"
        self._telling.line(f"💾 Needed: {needed}; {said}")
        return free

    @property
    def _archive(self) -> str:
        return _ARCHIVE.format(name=self._name)

    def _archives(self, source: SourceFiles) -> TieredStore:
        """A store of two tiers: where the archive lies meanwhile, and where it comes from."""
        first = replace(self._store.tiers[0], adopt=False)
        if self._options.temp_dir is not None:
            check_writable(self._options.temp_dir)
            first = replace(local_tier(self._options.temp_dir), name="temporary", adopt=False)
        return TieredStore([first, self._tier(source)], self._telling)

    def _tier(self, source: SourceFiles) -> Tier:
        sha256 = {f.path: self._options.sha256 for f in source.files() if self._options.sha256}
        return source.tier(sha256=sha256, connections=self._options.connections)

    def _extract(self, stage: Build, limits: Limits, name: str, stream: BinaryIO) -> None:
        found = extract(
            stream,
            stage,
            limits,
            self._telling.extracted,
            name,
            self._verifier.top,
        )
        self._telling.whole(found.files)

    def _fetch_and(
        self,
        unpack: Callable[[str, BinaryIO], None],
        archives: TieredStore,
        file: SourceFile,
        kind: str,
    ) -> None:
        """Fetch the archive in parallel; extract it while it arrives, where it can be."""
        followed: list[str] = []

        def follow(path: str, stream: BinaryIO) -> None:
            followed.append(path)
            unpack(path, stream)

        recipe = {"preparer": PREPARER, "inputs": {file.path: file.tag}}
        adoption = Adoption(recipe=recipe, follow=None if seeks(kind) else follow)
        with self._restored(archives, self._archive, [file.path], adoption) as got:
            if not followed:
                with got.open(file.path) as whole:
                    unpack(file.path, whole)

    def _straight(
        self,
        unpack: Callable[[str, BinaryIO], None],
        source: SourceFiles,
        file: SourceFile,
        kind: str,
    ) -> None:
        """Extract what is read of the source, which is kept nowhere."""
        if not self._options.local_path:
            self._telling.kept = False
            self._telling.line(
                "⚠️  The server serves no parts of files: what is interrupted begins anew"
            )
        wanted = self._options.sha256 or file.sha256
        if wanted and seeks(kind):  # it is not read in order then
            with source.open(file.path) as opened:
                Summed(opened, source.shown, wanted).read_all()
            wanted = ""
        self._telling.started("restore", self._name, file.size)
        with source.open(file.path) as opened:
            summed = Summed(opened, source.shown, wanted, self._telling.advanced)
            unpack(file.path, cast(BinaryIO, summed))
            summed.check()

    # -- files as they are ----------------------------------------------------------------------

    def _copy(
        self, source: SourceFiles, files: list[SourceFile], recipe: dict[str, object]
    ) -> None:
        first = replace(self._store.tiers[0], adopt=False)
        store = TieredStore([first, self._tier(source)], self._telling)
        adoption = Adoption(recipe=recipe, check=self._verifier.check, replace=True)
        self._restored(store, self._name, [f.path for f in files], adoption).close()

    def _restored(self, store: TieredStore, name: str, files: list[str], adoption: Adoption) -> Got:
        wanted = None if adoption.replace else adoption.recipe
        try:
            return store.restore(name, files, wanted, adoption)
        except ArtifactNotFound as error:
            raise DownloadError(error.why.get("source") or str(error)) from None

    # -- the end --------------------------------------------------------------------------------

    def _keep(self) -> Got:
        """Promote to the durable tiers, where there are any."""
        if any(tier.durable and tier.writable for tier in self._store.tiers[1:]):
            self._store.promote(self._name)
        return self._store.restore(self._name)

    def _done(self, got: Got, *, hit: bool) -> Downloaded:
        with got:
            found = self._store.tiers[0].locate(self._name)
            files, size = (found.head.files, found.head.size) if found.head else (0, 0)
            if not hit:
                self._telling.line(f"✅ {files} files, {shown(size)}: {got.path}")
            return Downloaded(self._name, got.path, files, size, hit)


def _destination(options: DownloadOptions, telling: Telling) -> tuple[TieredStore, str, Path]:
    """The store, the artifact's name in it, and the folder that it becomes."""
    if options.dest is not None:
        place = place_of(options.dest)
        tier = replace(place.tier, adopt=False)
        return TieredStore([tier], telling), place.name, place.folder
    store = open_store(options.config, reporter=telling)
    first = replace(store.tiers[0], adopt=False)
    store = TieredStore([first, *store.tiers[1:]], telling)
    return store, options.name, Path(first.backend.place, first.layout.folder(options.name))
