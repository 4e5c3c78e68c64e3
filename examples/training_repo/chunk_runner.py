"""How the phases of this repository run in chunks; used by multi_gpu_launcher.py."""

import sys

from datasets_prep.chunks import Phase

PHASES = {
    "1": Phase(
        "1",
        command=(
            *(sys.executable, "run.py", "phase", "1"),
            *("--start", "{start}", "--end", "{end}"),
        ),
        outputs=("*.parquet",),
    ),
}
