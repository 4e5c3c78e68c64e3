"""An independent look at what is left in the store's own area of a mounted root.

Shares no code with the store: only the documented names. `left_over` lists every entry that
neither belongs to something published, nor is known to stay; after ``gc`` without a grace, on a
root where nothing runs, there is none.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

AREA = ".tieredstore"
FOLDERS = {
    "stage",
    "part",
    "old",
    "damaged",
    "swap",
    "fill",
    "lease",
    "alive",
    "gone",
    "queue",
    "record",
    "space",
    "pins",
    "evict",
}


def left_over(root):
    """What should not be there, as paths below the root with a word on why."""
    area = Path(root) / AREA
    if not area.is_dir():
        return []
    fillings = set(pending(root, "filling"))
    found = []
    for path in sorted(area.rglob("*")):
        inside = path.relative_to(area)
        kind = inside.parts[0]
        if len(inside.parts) == 1:
            if str(inside) != ".gitignore" and kind not in FOLDERS:
                found.append(f"{AREA}/{inside}: unknown")
        elif kind in {"queue", "record", "pins"}:
            continue  # promotes that wait, values that are kept, and pins that stand
        elif kind == "lease":
            if not stays_as_lease(path):
                found.append(f"{AREA}/{inside}: a lease of nobody")
        elif kind == "fill" and path.name.removesuffix(".json") in fillings:
            continue  # somebody may go on with it
        else:
            found.append(f"{AREA}/{inside}: nobody works on it")
    return found


def stays_as_lease(path):
    """Locks of the kernel are empty files that stay; notes say how the last attempt failed."""
    return path.name == "length.json" or (path.name.endswith(".lock") and not path.stat().st_size)


def pending(root, kind):
    """The generations of marks of one kind, in all folders."""
    for folder, names, _ in os.walk(root):
        for name in names:
            if name.startswith(f"{AREA}.") and name.endswith(".pending"):
                for entry in os.listdir(Path(folder) / name):
                    if entry.startswith(f"{kind}-"):
                        yield entry.removeprefix(f"{kind}-")


def half_published(root):
    """Folders under a mark that any reader could have completed: publishing, and removing."""
    return [*pending(root, "publishing"), *pending(root, "removing")]


def heads(root):
    """Every head below a root, parsed: what is published."""
    found = {}
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name != AREA]
        for name in files:
            if name.startswith(AREA) and name.endswith(".json"):
                path = Path(folder) / name
                found[str(path.relative_to(root))] = json.loads(path.read_bytes())
    return found
