"""The plan of a run: recorded with the first run, found by every later one."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from datasets_prep.chunks.plan import Plan, plan_record, run_name
from datasets_prep.errors import OptionError, PlanError
from tieredstore import SharedRecord, TieredStore

_ASK: Final = 10.0  # seconds


def recorded(store: TieredStore, asked: Plan) -> tuple[Plan, bool]:
    """The plan that counts: the recorded one, or this one from now on.

    Parameters
    ----------
    store : TieredStore
        Where plans are recorded.
    asked : Plan
        What this run would do.

    Returns
    -------
    tuple of Plan and bool
        The plan, and whether it was there before.

    Raises
    ------
    PlanError
        When the one that is there is of another range.
    """
    record = store.record(asked.record)
    plan = _parsed(record, record.create(asked.to_json()))
    if (plan.phase, plan.end) != (asked.phase, asked.end):
        raise PlanError(
            f"{asked.run}: planned for {plan.start}-{plan.end}, asked for {asked.start}-"
            f"{asked.end}; run the items that are new from {plan.end + 1} on by themselves"
        )
    return plan, plan != asked


def existing(store: TieredStore, phase: str, start: int) -> Plan:
    """The recorded plan of a run.

    Raises
    ------
    PlanError
        When there is none, or it cannot be read.
    """
    record = store.record(plan_record(run_name(phase, start)))
    value = record.read()
    if value is None:
        raise PlanError(
            f"{run_name(phase, start)}: no plan in tier {record.tier.name!r}; "
            f"the first `chunks run` makes it"
        )
    return _parsed(record, value)


def _parsed(record: SharedRecord, value: object) -> Plan:
    return Plan.parse(value, f"{record.name} in tier {record.tier.name!r}")


def chosen_gpus(
    asked: Sequence[str] | None, workers: int | None, visible: Sequence[str] | None
) -> tuple[str, ...]:
    """What ``CUDA_VISIBLE_DEVICES`` is for each worker; an empty name leaves it alone.

    Parameters
    ----------
    asked : sequence of str or None
        GPUs by number, counted among those that are visible; or by name.
    workers : int or None
        So many workers without a GPU of their own.
    visible : sequence of str or None
        What ``CUDA_VISIBLE_DEVICES`` says now; ``None`` where it is unset.

    Raises
    ------
    OptionError
        For a GPU that is not visible, one that is named twice, and fewer than one worker.
    """
    if asked is not None and workers is not None:
        raise OptionError("either gpus or workers, not both")
    if workers is not None:
        if workers < 1:
            raise OptionError(f"{workers} workers: expected at least 1")
        return ("",) * workers
    if asked is None:
        return tuple(visible or ()) or tuple(_found()) or ("",)
    if not asked or len(set(asked)) != len(asked):
        raise OptionError(f"gpus {','.join(asked)!r}: expected each once, such as 0,1,2")
    return tuple(_visible(gpu, visible) for gpu in asked)


def _visible(gpu: str, visible: Sequence[str] | None) -> str:
    if not gpu or not all(c.isalnum() or c in "-_:" for c in gpu):
        raise OptionError(f"gpu {gpu!r}: expected a number such as 0, or a device's name")
    if visible is None or not gpu.isdigit():
        return gpu
    if int(gpu) >= len(visible):
        raise OptionError(f"gpu {gpu}: CUDA_VISIBLE_DEVICES leaves {len(visible)}, numbered from 0")
    return visible[int(gpu)]


def _found() -> list[str]:
    """The GPUs of this machine, as its driver lists them; none where there is no driver."""
    with suppress(OSError, subprocess.SubprocessError):
        asked = subprocess.run(
            ["nvidia-smi", "-L"],  # noqa: S607 - wherever it lies
            capture_output=True,
            text=True,
            timeout=_ASK,
            check=True,
        )
        lines = [line for line in asked.stdout.splitlines() if line.startswith("GPU ")]
        return [str(number) for number in range(len(lines))]
    return []
