"""The tables of the S3 benchmark: medians of the rounds, and ratios to one of the peers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

GIB = 1 << 30
BASE = "s5cmd"
_HEADS = (
    "peer",
    "wall s",
    "best s",
    "operation s",
    "MiB/s",
    "files/s",
    "cpu s",
    "cpu s/GiB",
    "peak MiB",
    "server cpu s",
    "others cpu s",
    f"wall / {BASE}",
    f"best / {BASE}",
    f"operation / {BASE}",
)

Row = Mapping[str, Any]


def render(rows: Sequence[Row], sizes: Mapping[str, int], counts: Mapping[str, int]) -> str:
    """All cases as Markdown tables.

    Parameters
    ----------
    rows : sequence of mapping
        The runs.
    sizes : mapping
        Bytes of each set.
    counts : mapping
        Files of each set for which files per second say something.
    """
    cases = list(dict.fromkeys((row["bed"], row["verb"], row["set"]) for row in rows))
    return "\n".join(
        _case(case, [r for r in rows if (r["bed"], r["verb"], r["set"]) == case], sizes, counts)
        for case in cases
    )


def _case(
    case: tuple[str, str, str],
    rows: Sequence[Row],
    sizes: Mapping[str, int],
    counts: Mapping[str, int],
) -> str:
    bed, verb, name = case
    peers = list(dict.fromkeys(row["peer"] for row in rows))
    found = {peer: _medians([r for r in rows if r["peer"] == peer]) for peer in peers}
    base = found.get(BASE)
    rounds = len(rows) // len(peers)
    lines = [
        f"**{verb} {name}, {bed}** (medians of {rounds})",
        "",
        f"| {' | '.join(_HEADS)} |",
        f"|{'---|' * len(_HEADS)}",
    ]
    for peer, got in sorted(found.items(), key=lambda item: item[1]["wall"]):
        cells = _cells(got, sizes[name], counts.get(name), base)
        lines.append(f"| {' | '.join([peer, *cells])} |")
    return "\n".join([*lines, ""])


def _medians(rows: Sequence[Row]) -> dict[str, float]:
    """The median of everything measured, and the shortest wall time."""
    summed = [{**row, "cpu": row["user"] + row["system"]} for row in rows]
    keys = ("wall", "cpu", "peak_mib", "server", "others", "operation")
    found = {
        key: statistics.median(row[key] for row in summed)
        for key in keys
        if all(row[key] is not None for row in summed)
    }
    return {**found, "best": min(row["wall"] for row in rows)}


def _cells(
    got: dict[str, float], size: int, count: int | None, base: dict[str, float] | None
) -> list[str]:
    operation = got.get("operation")
    return [
        f"{got['wall']:.2f}",
        f"{got['best']:.2f}",
        "" if operation is None else f"{operation:.2f}",
        f"{size / (1 << 20) / got['wall']:.0f}",
        "" if count is None else f"{count / got['wall']:.0f}",
        f"{got['cpu']:.2f}",
        f"{got['cpu'] * GIB / size:.2f}",
        f"{got['peak_mib']:.0f}",
        f"{got['server']:.2f}",
        f"{got['others']:.2f}",
        "" if base is None else f"{got['wall'] / base['wall']:.2f}",
        "" if base is None else f"{got['best'] / base['best']:.2f}",
        "" if base is None or operation is None else f"{operation / base['wall']:.2f}",
    ]
