"""Scripts looked at before they are used: by bash always, by SLURM where there is one."""

from __future__ import annotations

import shutil
import subprocess
from typing import Final

from datasets_prep.errors import InvalidJob, NoSlurm, SlurmFailed
from datasets_prep.slurm.queue import Queue
from datasets_prep.slurm.rendering import Script

_BASH: Final = 20.0  # seconds


def check(script: Script, queue: Queue | None = None) -> str:
    """Look whether a script is one, and whether SLURM would take it.

    Parameters
    ----------
    script : Script
        What to look at.
    queue : Queue, optional
        The SLURM to ask.

    Returns
    -------
    str
        Why SLURM was not asked; empty where it was.

    Raises
    ------
    InvalidJob
        For what is no script of bash.
    SlurmFailed
        When SLURM would refuse it, or does not answer in time.
    """
    _check_syntax(script)
    try:
        (queue or Queue()).run("sbatch", "--test-only", text=script.data)
    except NoSlurm as error:
        return str(error)
    except SlurmFailed as error:
        raise SlurmFailed(f"job {script.job.name!r}: {error}") from None
    return ""


def _check_syntax(script: Script) -> None:
    bash = shutil.which("bash")
    if bash is None:
        return
    done = subprocess.run(  # noqa: S603 - it is read, not run
        [bash, "-n"], input=script.data, capture_output=True, timeout=_BASH, check=False
    )
    if done.returncode or done.stderr:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise InvalidJob(f"job {script.job.name!r}: its script is none of bash's: {said}")
