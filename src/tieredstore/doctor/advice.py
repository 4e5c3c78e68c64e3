"""What follows for the configuration from what was found: one line each, the most urgent first.

Each rule looks at one tier, or at the machine, and says something or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from tieredstore import registry
from tieredstore.doctor.finding import BAD, Examined, Finding
from tieredstore.doctor.folder import is_network

_FULL: Final = 0.95
_SKEWED: Final = 60.0  # seconds
_STALE: Final = 1.0  # seconds
_ANSWERS: Final = 20  # round trips that a deadline should leave room for
_FILES: Final = 1024
_SOFT: Final = ("scratch", "runpod")  # backends whose leases need no flock, best first

Rule = Callable[[Examined], str]


def advice(
    machine: Sequence[Finding], tiers: Sequence[Examined], surroundings: Mapping[str, str]
) -> list[str]:
    """All that follows, in sentences that name the tier and the key."""
    said = [f"tier {e.place.tier!r}: {text}" for rule in _RULES for e in tiers if (text := rule(e))]
    said += _network_first(tiers, surroundings)
    said += list(_of_machine(machine))
    return said


def _unusable(examined: Examined) -> str:
    bad = next((f for f in examined.findings if f.state == BAD), None)
    if bad is None:
        return ""
    if bad.check == "rights":
        return f"cannot be written ({bad.meaning}); give it to who runs this, or read_only = true"
    if bad.result.startswith("hangs"):
        text = f"hangs at {bad.check!r}; mount it anew, or take it out of the configuration"
        return f"{text}. Until then each use of it waits for its deadline"
    return f"cannot be used: {bad.check}: {bad.result}; {bad.meaning}".rstrip("; ")


def _no_flock(examined: Examined) -> str:
    across = examined.value("flock across nodes")
    if examined.value("flock") is not False and across is not False:
        return ""
    if examined.place.kind != "LocalBackend":
        return ""  # leases there are marker files
    soft = next((name for name in _SOFT if name in registry.BUILT_IN), "")
    where = "between nodes" if examined.value("flock") else "on this mount"
    return f'flock does not exclude {where}: use backend = "{soft}", whose leases are marker files'


def _no_conditions(examined: Examined) -> str:
    if examined.value("conditional writes") is not False:
        return ""
    return (
        "writes are not conditional: heads are compared just before they are put, and of two that "
        "replace one artifact at the same instant the last one wins; let one job promote"
    )


def _skewed(examined: Examined) -> str:
    for check in ("clock", "clock across nodes"):
        off = examined.value(check)
        if isinstance(off, float) and abs(off) >= _SKEWED:
            other = "the other node's" if check != "clock" else "its"
            how = f"{abs(off) / 60:.0f} min"
            return f"{other} clock is {how} {'ahead' if off > 0 else 'behind'}; set it by NTP"
    return ""


def _short_deadline(examined: Examined) -> str:
    deadline = examined.place.deadline
    slow = [examined.value(check) for check in ("latency", "look", "syncfs")]
    slowest = max((v for v in slow if isinstance(v, float)), default=0.0)
    if slowest * _ANSWERS <= deadline and slowest < deadline:
        return ""
    return (
        f"deadline = {deadline:g} is short where one answer takes {slowest:.2g} s; "
        f"set deadline = {max(30, round(slowest * _ANSWERS * 2))}"
    )


def _almost_full(examined: Examined) -> str:
    used = examined.value("space")
    if not isinstance(used, float) or used < _FULL or examined.place.read_only:
        return ""
    if examined.place.keeps_free:
        return f"{used:.0%} full; tieredstore evict drops what a durable tier has"
    return f'{used:.0%} full, and min_free is not set; set such as min_free = "50 GB"'


def _few_inodes(examined: Examined) -> str:
    used = examined.value("inodes")
    if not isinstance(used, float) or used < _FULL:
        return ""
    return f"{used:.0%} of its inodes are used; keep many small files packed, or drop some"


def _two_steps(examined: Examined) -> str:
    if examined.value("exchange") is not False:
        return ""
    return "no RENAME_EXCHANGE: a replacement takes two steps; nothing has to be done"


def _one_case(examined: Examined) -> str:
    if examined.value("case") is not False:
        return ""
    return "does not tell upper from lower case: artifacts whose files differ only so are refused"


def _short_names(examined: Examined) -> str:
    longest = examined.value("longest name")
    if not isinstance(longest, int) or longest >= 255 or isinstance(longest, bool):  # noqa: PLR2004
        return ""
    return f"names of more than {longest} bytes cannot be kept; keep names of files shorter"


def _stale(examined: Examined) -> str:
    seconds = examined.value("stale attributes")
    if not isinstance(seconds, float) or seconds < _STALE:
        return ""
    return (
        f"other nodes see changes up to {seconds:.0f} s late: results stay whole, but a job that "
        "starts right after a promote may still find the older generation"
    )


_RULES: Final[tuple[Rule, ...]] = (
    _unusable,
    _skewed,
    _no_flock,
    _almost_full,
    _few_inodes,
    _short_deadline,
    _no_conditions,
    _stale,
    _one_case,
    _short_names,
    _two_steps,
)


def _network_first(tiers: Sequence[Examined], surroundings: Mapping[str, str]) -> Iterator[str]:
    """The first tier is read from all the time: it should be a disk of this machine."""
    for examined in tiers:
        if not examined.place.first or not is_network(examined.value("reachable")):
            continue
        local = next((v for v in ("SLURM_TMPDIR", "TMPDIR") if v in surroundings), "")
        where = f"put it on ${local}" if local else "put it on a local disk"
        yield f"tier {examined.place.tier!r}: the first tier is on a network mount; {where}"


def _of_machine(machine: Sequence[Finding]) -> Iterator[str]:
    for found in machine:
        few = isinstance(found.value, int) and found.value < _FILES
        if found.check == "open files" and few:
            yield f"this machine: {found.value} open files are few; ulimit -n {_FILES * 4}"
