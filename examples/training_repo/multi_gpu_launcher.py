"""`python multi_gpu_launcher.py --phase 1 --start 0 --end 488`: chunks on all GPUs, then merged.

Run the same command again after a crash: chunks that are completed are skipped.
"""

import argparse
import sys

from chunk_runner import PHASES

from datasets_prep.cli import run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phase", required=True, choices=sorted(PHASES))
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--end", type=int, required=True)
    parser.add_argument("--no-checkpoint", action="store_true")
    parser.add_argument("--cleanup", action="store_true")
    args = parser.parse_args()
    phase = PHASES[args.phase]
    words = ["chunks", "run", "--phase", args.phase]
    words += ["--start", str(args.start), "--end", str(args.end)]
    words += [f"--output={pattern}" for pattern in phase.outputs]
    words += ["--no-checkpoint"] * args.no_checkpoint + ["--cleanup"] * args.cleanup
    return run([*words, "--", *phase.command])


if __name__ == "__main__":
    sys.exit(main())
