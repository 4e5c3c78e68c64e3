"""What artifacts of the random histories hold: every byte follows from a name and a tag.

Shared by the process that writes them and the checker that looks; nothing of the store is here.
"""

from __future__ import annotations

import hashlib
import random

FOLDERS = ("alpha", "runs/beta", "many")
SINGLES = ("one.bin", "logs/two.bin")
MERGED = "merged.bin"
NAMES = (*FOLDERS, *SINGLES, MERGED)
TAG = "tag.txt"  # in every folder: its tag
MANY = 12  # files of ``many``, which are packed where the tier packs
SIZES = (0, 1, 999, 70_000, (1 << 20) + 17)


def _bytes(seed, size):
    block = hashlib.sha256(seed.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def files(name, tag):
    """The files of an artifact, by their paths below its folder; of a single file by its name."""
    if name == MERGED:
        return {MERGED: b"".join(_of_part(part) for part in parts_of(tag))}
    chance = random.Random(f"{name} {tag}")
    if name in SINGLES:
        size = chance.choice(SIZES)
        return {name.rpartition("/")[2]: f"{tag}\n".encode() + _bytes(f"{name} {tag}", size)}
    found = {TAG: tag.encode()}
    for number in range(MANY if name == "many" else chance.randint(1, 4)):
        path = chance.choice(("f{}.bin", "deep/f{}.bin", "deep/er/f{}.bin")).format(number)
        size = chance.choice(SIZES[:-1] if name == "many" else SIZES)
        found[path] = _bytes(f"{name} {tag} {path}", size)
    return found


def merged_tag(tags):
    """The tag of what is composed of the single files with these tags."""
    return "merged " + " ".join(tags)


def parts_of(tag):
    """The single files, with their tags, that something composed consists of."""
    return list(zip(SINGLES, tag.split(" ")[1:], strict=True))


def _of_part(part):
    return files(*part)[part[0].rpartition("/")[2]]


def tag_in(name, found):
    """The tag that the bytes of a copy say; ``""`` where the file that says it is missing."""
    if name in SINGLES:
        return next(iter(found.values())).partition(b"\n")[0].decode()
    return found.get(TAG, b"").decode()
