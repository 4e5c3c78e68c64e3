"""The error tree. Nothing but exception classes belongs here.

Every error also inherits the builtin that a caller would catch, and carries a stable ``kind``::

    TieredStoreError
    ├── ConfigError           ValueError           config
    ├── InvalidName           ValueError           name
    ├── ManifestError         ValueError           manifest
    ├── UnsafePath            PermissionError      unsafe
    ├── ArtifactNotFound      FileNotFoundError    not-found
    ├── NoSuchFile            FileNotFoundError    no-file
    ├── ArtifactChanged       OSError              changed
    ├── ArtifactExists        FileExistsError      exists
    ├── RecipeConflict        FileExistsError      recipe
    ├── HeadConflict          FileExistsError      conflict
    ├── CorruptData           OSError              corrupt
    ├── TierUnavailable       OSError              tier
    │   ├── NoSpace           OSError              space
    │   └── TierTimeout       TimeoutError         timeout
    ├── LeaseTimeout          TimeoutError         lease
    ├── BuildFailed           RuntimeError         build
    ├── PromoteFailed         OSError              promote
    ├── EvictRefused          PermissionError      evict
    ├── RepairFailed          OSError              repair
    └── Unsupported           NotImplementedError  unsupported
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar


class TieredStoreError(Exception):
    """Base of everything that this library raises on purpose."""

    kind: ClassVar[str] = "error"


class ConfigError(TieredStoreError, ValueError):
    """A configuration that cannot be used; the message names file, table and key."""

    kind = "config"


class InvalidName(TieredStoreError, ValueError):
    """A name that is no plain relative path, or that would clash with another."""

    kind = "name"


class ManifestError(TieredStoreError, ValueError):
    """A head or records that are malformed, oversized, damaged or of an unknown format."""

    kind = "manifest"


class UnsafePath(TieredStoreError, PermissionError):
    """A symbolic link or special file where the store expects a folder or a regular file."""

    kind = "unsafe"


class ArtifactNotFound(TieredStoreError, FileNotFoundError):
    """No tier can serve the artifact; the message lists what each tier said.

    Attributes
    ----------
    why : mapping
        The same, by tier.
    """

    kind = "not-found"

    def __init__(self, message: str, why: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.why = dict(why or {})


class NoSuchFile(TieredStoreError, FileNotFoundError):
    """The artifact is there, and has no file of that name."""

    kind = "no-file"


class ArtifactChanged(TieredStoreError, OSError):
    """The artifact was replaced file by file while a reader held it; restore it again."""

    kind = "changed"


class ArtifactExists(TieredStoreError, FileExistsError):
    """The name is taken, or lies inside another artifact, or holds one."""

    kind = "exists"


class RecipeConflict(TieredStoreError, FileExistsError):
    """The tier holds the artifact made by another recipe, and no replacement was asked for."""

    kind = "recipe"


class HeadConflict(TieredStoreError, FileExistsError):
    """The head changed between reading it and publishing a new one."""

    kind = "conflict"


class CorruptData(TieredStoreError, OSError):
    """Bytes that do not match their digest, or a file of the wrong size."""

    kind = "corrupt"


class TierUnavailable(TieredStoreError, OSError):
    """A tier that is down, denies access or cannot be written.

    Attributes
    ----------
    errno : int or None
        What the system said, where it said something.
    writing : str
        The tier that could not be written; empty when it could not be read.
    """

    kind = "tier"

    def __init__(self, message: str, code: int | None = None, writing: str = "") -> None:
        super().__init__(message)
        self.errno = code
        self.writing = writing


class NoSpace(TierUnavailable):
    """A tier in which there is no room for what was to be put there, found out before it was.

    Attributes
    ----------
    needed, missing : int
        Bytes that were to be put there, and how many of them had no room.
    """

    kind = "space"

    def __init__(self, message: str, tier: str, *, needed: int, missing: int) -> None:
        super().__init__(message, errno.ENOSPC, tier)
        self.needed = needed
        self.missing = missing


class TierTimeout(TierUnavailable, TimeoutError):
    """A tier that did not answer within its deadline."""

    kind = "timeout"


class LeaseTimeout(TieredStoreError, TimeoutError):
    """A lease that somebody else held for longer than the caller would wait."""

    kind = "lease"


class BuildFailed(TieredStoreError, RuntimeError):
    """The attempt at building that this call waited for has failed.

    Attributes
    ----------
    why : str
        What was raised there, in one line.
    pid, host : int and str
        Whose attempt it was.
    when : int
        Seconds since 1970 by that machine's clock.
    """

    kind = "build"

    def __init__(self, name: str, why: str, *, pid: int = 0, host: str = "", when: int = 0) -> None:
        self.why, self.pid, self.host, self.when = why, pid, host, when
        super().__init__(
            f"{name}: built by process {pid} on {host or 'another host'} while this call waited, "
            f"and that failed: {why}"
        )


class PromoteFailed(TieredStoreError, OSError):
    """At least one tier did not take the artifact.

    Attributes
    ----------
    outcomes : tuple
        One ``TierOutcome`` for each tier that was tried.
    """

    kind = "promote"

    def __init__(self, message: str, outcomes: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.outcomes = outcomes


class EvictRefused(TieredStoreError, PermissionError):
    """Dropping the copy could lose data."""

    kind = "evict"


class RepairFailed(TieredStoreError, OSError):
    """At least one damaged copy was not mended.

    Attributes
    ----------
    verified : dict
        By artifact, one ``Verified`` for each copy that was looked at.
    """

    kind = "repair"

    def __init__(self, message: str, verified: dict[str, list[Any]] | None = None) -> None:
        super().__init__(message)
        self.verified = verified or {}


class Unsupported(TieredStoreError, NotImplementedError):
    """The place cannot do what was asked of it."""

    kind = "unsupported"


@contextmanager
def writing_to(tier: str) -> Iterator[None]:
    """Raise what the system says of writing to a tier as `TierUnavailable`, in one line."""
    try:
        yield
    except TieredStoreError:
        raise
    except OSError as error:
        raise cannot_write(tier, error) from error


@contextmanager
def reading_from(tier: str) -> Iterator[None]:
    """Raise what the system says of reading a tier as `TierUnavailable`, in one line."""
    try:
        yield
    except TieredStoreError:
        raise
    except OSError as error:
        text = f"tier {tier!r} cannot be read: {reason(error)}"
        raise TierUnavailable(text, error.errno) from error


def cannot_write(tier: str, error: OSError) -> TierUnavailable:
    """What the system said of writing to a tier, in one line."""
    return TierUnavailable(f"tier {tier!r} cannot be written: {reason(error)}", error.errno, tier)


def overtaken(error: BaseException) -> bool:
    """Whether a publication failed because somebody else's came first: look again, and go on.

    One who moves the same generation publishes the stage that both write to, which is then gone.
    """
    if isinstance(error, TierUnavailable):
        return bool(error.writing) and error.errno == errno.ENOENT
    return isinstance(error, HeadConflict)


def reason(error: BaseException) -> str:
    """Say in one line why something failed.

    Parameters
    ----------
    error : BaseException
        Any exception; an ``OSError`` gives its system message and file name.

    Returns
    -------
    str
        One line without a trailing full stop.
    """
    if isinstance(error, TieredStoreError):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    else:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return " ".join(text.split())
