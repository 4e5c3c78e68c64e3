"""Writes job scripts for a folder of experiments, and submits them where that is asked for.

    python tools/slurm/generate_slurm_scripts.py experiments --dry-run
    python tools/slurm/generate_slurm_scripts.py experiments --submit

EXPERIMENT_DIR [--template T] [--dry-run] [--overwrite] [--submit], and every key as an option.
"""

import sys

from datasets_prep.cli import run

if __name__ == "__main__":
    sys.exit(run(["slurm", "script", *sys.argv[1:]]))
