"""The independent checker: looks at all tiers of a random history, with nothing of the store.

Every copy that a reader may see is whole, byte for byte what its tag says, and one that was
promised or may have been left (``promises.py``); nothing else lies there but the store's own
areas, whose names are those in ``docs/design.md``.
"""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path

import crash_promises as promises
import crash_reading as reading
import crash_samples as samples

OWN = ".tieredstore"
MINE = "mine.py"  # somebody's file in an artifact's folder, see wild.py
DESIGN = Path(__file__).parents[2] / "docs" / "design.md"
EMPTY_AFTER_GC = ("stage", "part", "old", "swap", "fill", "damaged")
OF_KEYS = ("lease", "probe", "s3")
# keys of generations without a head, which gc knows
GENERATION = re.compile(rf"({'|'.join(map(re.escape, samples.NAMES))})/[0-9a-z][0-9a-z-]{{7,63}}/.")


class Litter(AssertionError):
    """Something that is no copy of an artifact, and no area that the design names."""


def areas():
    """The store's own areas of a mounted place, as the design lists them."""
    rows = re.findall(r"^\| (`[^|]+) \|", DESIGN.read_text(), re.MULTILINE)
    return {area for row in rows for area in re.findall(r"`(\w+)/", row)}


class Place:
    """One tier, read from outside.

    Parameters
    ----------
    files : mapping
        All that lies there, by paths to bytes.
    root : path, optional
        Of a mounted place; there is none of keys.
    """

    def __init__(self, files, root=None):
        self.files, self.root = files, root
        self.seen = set()  # paths that belong to something

    def take(self, path):
        self.seen.add(path)
        return self.files.get(path)

    def unknown(self):
        """What belongs to nothing that was looked at; the store's own is looked at elsewhere."""
        rest = {p for p in self.files if p not in self.seen and not p.startswith(f"{OWN}/")}
        if self.root is None:
            return {p for p in rest if not GENERATION.match(p)}
        return {p for p in rest if not p.endswith(f"/{MINE}")}


def mounted(root):
    """A mounted place, its own area included."""
    found = {}
    for above, _, names in os.walk(root):
        for name in names:
            path = Path(above, name)
            found[str(path.relative_to(root))] = path.read_bytes()
    return Place(found, root)


# -- one copy -------------------------------------------------------------------------------------


def state(place, name):
    """What is visible of an artifact: its tag, or that it is absent or hidden; and its files."""
    single = place.root is not None and name not in samples.FOLDERS
    above = "/".join(name.split("/")[:-1]) if single else _folder(place, name)
    base = f"{above}/" if above else ""
    inner = f"{name.rpartition('/')[2]}." if single else ""
    own = {end: f"{base}{OWN}.{inner}{end}" for end in ("json", "records", "partial", "pending")}
    entries = [p for p in place.files if p.startswith(f"{own['pending']}/")]
    if entries:
        place.seen.update(entries)
        place.seen.update(p for p in place.files if _among(p, base, inner))
        return promises.HIDDEN, {}
    data = place.take(own["json"])
    if data is None:
        return promises.ABSENT, {}
    head = reading.parse_head(data)
    base += f"{head['data']}/" if head["data"] else ""
    at = own["records"] if not head["data"] else f"{base}{OWN}.records"
    records = reading.parse_records(head, place.take(at))
    found = _packed(place, base, head, records) or _beside(place, base, records)
    partial = place.take(own["partial"]) is not None
    for path, record in records.items():
        if path in found:
            reading.check_file(f"{name}: {path}", record, found[path])
        elif not partial:
            raise reading.NotWhole(f"{name}: {path} is missing")
    return _tag(name, head, found), found


def _folder(place, name):
    """Where an artifact's folder is, which may be between the two steps of a replacement."""
    if place.root is None or Path(place.root, name).is_dir():
        return name
    return os.path.relpath(reading.between_two_steps(place.root, name), place.root)


def _among(path, base, inner):
    """Whether a path belongs to what is hidden: a folder, or one file and its marks."""
    single = inner.rstrip(".")
    return path.startswith((f"{base}{OWN}.{inner}", base if not single else base + single))


def _beside(place, base, records):
    return {path: data for path in records if (data := place.take(base + path)) is not None}


def _packed(place, base, head, records):
    """The files of shards: index and tar files, as the design describes them."""
    if not head.get("shards"):
        return None
    index = place.take(f"{base}{OWN}.shards")
    first, rest = index.split(b"\n", 1)
    count = json.loads(first)["shards"]
    shards = [place.take(f"{base}{OWN}.shards-{n:05d}.tar") for n in range(count)]
    found = {}
    for number, (path, record) in enumerate(sorted(records.items(), key=lambda r: r[0].encode())):
        shard, offset = struct.unpack_from("<IQ", rest, 8 * count + 12 * number)
        if shard == 2**32 - 1:
            found[path] = place.take(base + path)
        else:
            found[path] = shards[shard][offset : offset + record[0]]
    return found


def _tag(name, head, found):
    tag = ((head["recipe"] or {}).get("options") or {}).get("tag") or samples.tag_in(name, found)
    right = samples.files(name, tag)
    for path, data in found.items():
        if right.get(path) != data:
            raise reading.NotWhole(f"{name}: {path} is not what was written as {tag!r}")
    return tag


# -- all of them ----------------------------------------------------------------------------------


def look(place, tier, promised):
    """Check one tier against what was promised, and that nothing else lies there."""
    for name in samples.NAMES:
        seen, found = state(place, name)
        promised.saw(tier, name, seen)
        if seen not in {promises.ABSENT, promises.HIDDEN}:
            wanted = promises.promised_files(promised, tier, name, seen)
            if wanted - set(found):
                raise reading.NotWhole(f"{tier}: {name} lacks {sorted(wanted - set(found))}")
    by_filling = promises.put_in_by_a_filling
    rest = {p for p in place.unknown() if not by_filling(promised, p, place.files[p])}
    if rest:
        raise Litter(f"{tier}: {sorted(rest)[:5]} belong to nothing")


def look_at_areas(place, tier):
    """What the store keeps for itself on a mounted place lies in the areas of the design."""
    known = areas() if place.root is not None else OF_KEYS
    for path in place.files:
        parts = path.split("/")
        if parts[0] == OWN and len(parts) > 2 and parts[1] not in known:
            raise Litter(f"{tier}: {path} is in no area of the design")
        if parts[:2] == [OWN, "damaged"]:
            raise Litter(f"{tier}: {path} was kept aside, and nothing was damaged")


def _ledgers(place):
    """Of fillings that somebody may go on with: a pending mark says so."""
    marks = re.compile(rf"/{OWN}\.pending/filling-([0-9a-z-]+)$")
    return {f"{OWN}/fill/{found[1]}.json" for p in place.files if (found := marks.search(p))}


def look_after_gc(place, tier):
    """Nothing is left of what was not published, and is not going to be."""
    own = [p.split("/") for p in place.files if p not in _ledgers(place)]
    left = ["/".join(p) for p in own if p[0] == OWN and p[1] in EMPTY_AFTER_GC]
    if place.root is None:
        left += [p for p in place.files if p not in place.seen and not p.startswith(f"{OWN}/")]
    if left:
        raise Litter(f"{tier}: gc left {sorted(left)[:5]}")
