"""What this machine is: cores, memory, versions, limits, and the cluster or pod that it is part of.

Nothing here touches a tier; what the environment says comes from ``config.py``.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from tieredstore.doctor.finding import GOOD, NOTE, Finding
from tieredstore.errors import TierTimeout
from tieredstore.limits import size
from tieredstore.workers import within

_CLIENTS: Final = ("filelock", "fsspec", "obstore", "botocore", "s3fs", "huggingface_hub")
_FEW_FILES: Final = 1024
_LITTLE: Final = 10 << 30  # bytes
_LOOK: Final = 5.0  # seconds
_MEMORY: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine(surroundings: Mapping[str, str]) -> tuple[Finding, ...]:
    """All of it.

    Parameters
    ----------
    surroundings : mapping
        What the environment says, see `config.surroundings`.
    """
    return (
        Finding("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        Finding("node", platform.node(), _cluster(surroundings)),
        _cores(),
        _memory(),
        Finding("python", platform.python_version(), "", GOOD, platform.python_version()),
        _versions(),
        _open_files(),
        _temporary(),
    )


def _cluster(surroundings: Mapping[str, str]) -> str:
    job, pod = surroundings.get("SLURM_JOB_ID"), surroundings.get("RUNPOD_POD_ID")
    found = [f"SLURM job {job}"] if job else []
    if pod:
        found.append(f"RunPod pod {pod}")
    if not found and shutil.which("sbatch"):
        found.append("SLURM, outside a job")
    return ", ".join(found)


def _cores() -> Finding:
    usable, whole = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    meaning = "" if usable == whole else f"of {whole} that the machine has"
    return Finding("cores", str(usable), meaning, GOOD, usable)


def _memory() -> Finding:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _MEMORY:
        with suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            limit = int(file.read())
            if limit < whole:
                return Finding(
                    "memory", size(limit), f"of {size(whole)}, by its group", GOOD, limit
                )
    return Finding("memory", size(whole), "", GOOD, whole)


def _versions() -> Finding:
    from importlib.metadata import PackageNotFoundError, version

    from tieredstore import __version__

    found = [f"tieredstore {__version__}"]
    missing = []
    for name in _CLIENTS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    meaning = f"not installed: {', '.join(missing)}" if missing else ""
    return Finding("clients", ", ".join(found), meaning)


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    state = NOTE if soft < _FEW_FILES else GOOD
    meaning = "many transfers at once may run out of them" if state == NOTE else ""
    most = "" if hard in {soft, resource.RLIM_INFINITY} else f", up to {hard}"
    return Finding("open files", f"{soft}{most}", meaning, state, soft)


def _temporary() -> Finding:
    folder = tempfile.gettempdir()
    try:
        found = within(_LOOK, partial(os.statvfs, folder), folder)
    except (OSError, TierTimeout) as error:
        return Finding("temporary files", folder, f"cannot be asked: {error}", NOTE, 0)
    free = found.f_bavail * found.f_frsize
    few = free < _LITTLE
    meaning = "large files on their way to the Hub are kept there" if few else ""
    return Finding("temporary files", f"{folder}, {size(free)} free", meaning, GOOD, free)
