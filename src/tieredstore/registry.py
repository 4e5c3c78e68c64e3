"""Backends by name, from the entry-point group ``tieredstore.backends``, loaded one at a time.

The built-in ones are registered the same way by this distribution, and are known here too so that
they work from a source tree; another distribution that takes one of their names is an error.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Final

from tieredstore.backend import Readable
from tieredstore.errors import ConfigError, reason

GROUP: Final = "tieredstore.backends"
BUILT_IN: Final = {
    "local": "tieredstore.backends.local:LocalBackend",
    "runpod": "tieredstore.backends.runpod:RunPodBackend",
    "fsspec": "tieredstore.backends.fsspec:FsspecBackend",
}


def names() -> list[str]:
    """Every backend that can be asked for, without loading any."""
    return sorted({*BUILT_IN, *(e.name for e in entry_points(group=GROUP))})


def load(name: str) -> type[Readable]:
    """The class of one backend.

    Raises
    ------
    ConfigError
        When there is none of that name, two distributions offer it, or it cannot be loaded.
    """
    if name in BUILT_IN:
        point = EntryPoint(name, BUILT_IN[name], GROUP)
        # Only a name that a plugin could have taken is worth reading every distribution's metadata.
        return _loaded(point)
    found = {e.value: e for e in entry_points(group=GROUP, name=name)}
    if not found:
        raise ConfigError(f"no backend {name!r}; installed are {', '.join(names())}")
    if len(found) > 1:
        raise ConfigError(
            f"backend {name!r} is offered twice: {', '.join(sorted(found))}; remove one"
        )
    return _loaded(next(iter(found.values())))


def check_clashes() -> None:
    """Refuse a plugin that takes the name of a built-in backend or of another plugin."""
    seen: dict[str, str] = dict(BUILT_IN)
    for point in entry_points(group=GROUP):
        other = seen.setdefault(point.name, point.value)
        if other != point.value:
            raise ConfigError(
                f"backend {point.name!r} is offered twice: {other}, {point.value}; remove one"
            )


def _loaded(point: EntryPoint) -> type[Readable]:
    try:
        loaded = point.load()
    except Exception as error:
        raise ConfigError(
            f"backend {point.name!r} ({point.value}) cannot be loaded: {reason(error)}"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Readable)):
        raise ConfigError(f"backend {point.name!r} ({point.value}) is no Readable backend")
    return loaded
