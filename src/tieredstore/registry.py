"""Backends by name, from the entry-point group ``tieredstore.backends``, loaded one at a time.

The built-in ones are registered the same way by this distribution, and are known here too: they
work from a source tree, and a hit on them reads no distribution's metadata. `check_clashes` reads
it all and refuses a plugin that takes a name which is not its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from tieredstore.backend import Readable
from tieredstore.errors import ConfigError, reason

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "tieredstore.backends"
BUILT_IN: Final = {
    "local": "tieredstore.backends.local:LocalBackend",
    "runpod": "tieredstore.backends.runpod:RunPodBackend",
    "scratch": "tieredstore.backends.scratch:ScratchBackend",
    "fsspec": "tieredstore.backends.fsspec:FsspecBackend",
    "http": "tieredstore.backends.http:HttpBackend",
    "s3": "tieredstore.backends.s3:S3Backend",
    "hf": "tieredstore.backends.hf:HubBackend",
}


def names() -> list[str]:
    """Every backend that can be asked for, without loading any."""
    return sorted({*BUILT_IN, *(point.name for point in _points())})


def load(name: str) -> type[Readable]:
    """The class of one backend; no other is loaded.

    Raises
    ------
    ConfigError
        When there is none of that name, two distributions offer it, or it cannot be loaded.
    """
    if name in BUILT_IN:
        return _loaded(name, BUILT_IN[name])
    found = [point for point in _points() if point.name == name]
    if not found:
        raise ConfigError(f"no backend {name!r}; installed are {', '.join(names())}")
    _refuse_two(found)
    return _loaded(name, found[0].value)


def check_clashes() -> None:
    """Refuse a plugin that takes the name of a built-in backend or of another plugin.

    Raises
    ------
    ConfigError
        Naming both, and the distribution to remove.
    """
    _refuse_two(_points())


def _points() -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points

    return entry_points(group=GROUP)


def _refuse_two(points: Iterable[EntryPoint]) -> None:
    seen: dict[str, EntryPoint] = {}
    for point in points:
        first = seen.setdefault(point.name, point)
        value = BUILT_IN.get(point.name, first.value)
        if value != point.value:
            other = "tieredstore itself" if point.name in BUILT_IN else _owner(first)
            raise ConfigError(
                f"backend {point.name!r} is offered twice: {value} by {other} and {point.value} "
                f"by {_owner(point)}; uninstall {_owner(point)}, or have it take another name"
            )


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown distribution"


def _loaded(name: str, value: str) -> type[Readable]:
    from importlib import import_module

    module, _, attribute = value.partition(":")
    try:
        loaded = getattr(import_module(module), attribute)
    except Exception as error:
        raise ConfigError(
            f"backend {name!r} ({value}) cannot be loaded: {reason(error)}; "
            f"reinstall or upgrade the distribution that offers it"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Readable)):
        raise ConfigError(f"backend {name!r} ({value}) is no subclass of tieredstore's Readable")
    return loaded
