"""The process that examines one tier: it may hang with it, and is then ended from outside.

Reads what to examine as one JSON document from standard input; writes a JSON line when a check
begins and for each finding. Run as ``python -m tieredstore.doctor.child``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from tieredstore.doctor.finding import BAD, Check, Finding, Place


def main() -> None:
    """Examine the tier that standard input describes."""
    asked = json.load(sys.stdin)
    place = Place(**asked["place"])
    if place.mounted:
        _mounted(place, asked)
    else:
        _remote(place, asked)


def _mounted(place: Place, asked: dict[str, Any]) -> None:
    from tieredstore.doctor import folder, locks
    from tieredstore.doctor.ground import Ground
    from tieredstore.doctor.meeting import FOLDER, Meeting

    if _run(folder.reading(place)):
        return
    ground = Ground(place.place)

    def begin() -> Finding:
        try:
            ground.open()
            return folder.rights()
        except OSError as error:
            return folder.cannot_write(place, error)

    try:
        if place.read_only:
            return
        found = _tell(Check("rights", begin))
        if found and found[0].value is False:
            return
        _run([*locks.checks(), *folder.writing()])
        if asked.get("nodes", 1) > 1:
            meeting = Meeting(ground.shared(FOLDER), ground.run, float(asked["wait"]))
            _run(meeting.checks())
    finally:
        ground.close()


def _remote(place: Place, asked: dict[str, Any]) -> None:
    from tieredstore.config import open_store
    from tieredstore.doctor import remote

    store = open_store(asked["config"])
    _run(remote.checks(store.tier(place.tier), asked.get("names", [])))


def _run(checks: Iterable[Check]) -> bool:
    """Try them one after the other; true where one says that the rest is of no use."""
    return any(any(found.state == BAD for found in _tell(check)) for check in checks)


def _tell(check: Check) -> list[Finding]:
    _say({"begin": check.name, "seconds": check.seconds})
    found = check.findings()
    for each in found:
        _say({"finding": asdict(each)})
    return found


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
