"""An independent reader of the documented format: JSON, struct and xxhash, nothing of the store.

`mounted` and `keyed` say what of an artifact is visible in a place: ``absent``, or the tag in its
recipe. A copy that is visible and not whole, byte for byte, fails the test that looked.
"""

from __future__ import annotations

import json
import os
import struct
from contextlib import suppress
from pathlib import Path

import xxhash


class NotWhole(AssertionError):
    """Something visible that differs from its manifest."""


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def parse_head(data):
    if len(data) > 64 * 1024:
        raise NotWhole("the head is larger than 64 KiB")
    try:
        body = json.loads(data)
        check = body.pop("check")
    except ValueError:
        raise NotWhole(f"the head is no JSON: {data[:40]!r}") from None
    if xxhash.xxh3_128_hexdigest(canonical(body)) != check:
        raise NotWhole("the head does not match its check")
    return body


def parse_records(head, data):
    if len(data) != head["records"]["size"]:
        raise NotWhole("the records have another length than the head says")
    if xxhash.xxh3_128_hexdigest(data) != head["records"]["digest"]:
        raise NotWhole("the records do not match the head")
    first, _, rest = data.partition(b"\n")
    counts = json.loads(first)
    lines, table = rest[: counts["lines"]].splitlines(), rest[counts["lines"] :]
    files = {}
    for line in lines:
        path, size, _mode, _mtime, begin, count, _sha = json.loads(line)
        blocks = []
        for at in range(begin * 20, (begin + count) * 20, 20):
            (length,) = struct.unpack_from("<I", table, at)
            blocks.append((length, table[at + 4 : at + 20]))
        files[path] = (size, blocks)
    if len(files) != head["files"] or sum(s for s, _ in files.values()) != head["size"]:
        raise NotWhole("head and records disagree on the totals")
    return files


def good_bytes(record, data, unit=1):
    """How many of a file's bytes are right, counted in runs of ``unit`` whole blocks."""
    _size, blocks = record
    good = at = 0
    for first in range(0, len(blocks), unit):
        run = blocks[first : first + unit]
        right, begin = True, at
        for length, digest in run:
            right = right and xxhash.xxh3_128_digest(data[at : at + length]) == digest
            at += length
        good += at - begin if right else 0
    return good


def check_file(path, record, data):
    if len(data) != record[0] or good_bytes(record, data) != record[0]:
        raise NotWhole(f"{path}: {len(data)} bytes that differ from the manifest")


def tag_of(head):
    return head["recipe"]["options"]["tag"]


# -- a mounted place ---------------------------------------------------------------------------


def mounted(root, name, single=False):
    """What is visible of an artifact below a tier's root; ``hidden`` below a pending mark."""
    folder = Path(root, name)
    marks = (".tieredstore.json", ".tieredstore.records", ".tieredstore.pending")
    partial = ".tieredstore.partial"
    if single:
        folder = Path(root)
        marks = tuple(f".tieredstore.{name}.{m.rpartition('.')[2]}" for m in marks)
        partial = f".tieredstore.{name}.partial"
    elif not folder.is_dir():
        folder = between_two_steps(root, name)
    head, records, pending = (folder / m for m in marks)
    if pending.is_dir() and os.listdir(pending):
        return "hidden"
    if not head.is_file():
        return "absent"
    body = parse_head(head.read_bytes())
    found = parse_records(body, records.read_bytes())
    for path, record in found.items():
        file = folder / path
        if not file.is_file():
            if (folder / partial).exists():
                continue
            raise NotWhole(f"{file}: is missing")
        check_file(file, record, file.read_bytes())
    return tag_of(body)


def between_two_steps(root, name):
    """Where folders cannot be exchanged, a note names the staged folder that takes the place."""
    swap = Path(root, ".tieredstore", "swap")
    for note in sorted(swap.iterdir()) if swap.is_dir() else ():
        with suppress(ValueError):  # a note that was half written means nothing
            body = json.loads(note.read_bytes())
            shown = not note.name.startswith(".") and body["folder"] == name
            if shown and Path(root, body["staged"]).is_dir():
                return Path(root, body["staged"])
    return Path(root, name)


def staged_bytes(root, records, unit=1):
    """Bytes of a generation that an interrupted move has left and that need not move again."""
    good = 0
    for home in Path(root, ".tieredstore", "part").glob("*"):
        for path, record in records.items():
            places = [home / "wip" / path, home / "files" / path]
            places += [going / path for going in home.glob("going-*")]
            data = [p.read_bytes() for p in places if p.is_file()]
            good += max((good_bytes(record, d, unit) for d in data), default=0)
    return good


def records_at(root, name):
    """The records of an artifact that is whole below a tier's root."""
    folder = Path(root, name)
    body = parse_head((folder / ".tieredstore.json").read_bytes())
    return parse_records(body, (folder / ".tieredstore.records").read_bytes())


# -- a place without rename --------------------------------------------------------------------


def keyed(keys, name):
    """What is visible of an artifact among keys, given as a mapping to their bytes."""
    data = keys.get(f"{name}/.tieredstore.json")
    if data is None:
        return "absent"
    body = parse_head(data)
    base = f"{name}/{body['data']}"
    found = parse_records(body, keys[f"{base}/.tieredstore.records"])
    for path, record in found.items():
        if f"{base}/{path}" not in keys:
            raise NotWhole(f"{base}/{path}: no such key")
        check_file(path, record, keys[f"{base}/{path}"])
    return tag_of(body)


def keyed_bytes(keys, name, records):
    """Bytes of keys that an interrupted promote has left whole, of all generations."""
    good = 0
    for path, record in records.items():
        copies = [d for k, d in keys.items() if k.startswith(f"{name}/") and k.endswith(f"/{path}")]
        good += max((record[0] for d in copies if good_bytes(record, d) == record[0]), default=0)
    return good
