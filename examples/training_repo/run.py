"""A small stage of a long piece of work: `python run.py phase 1 --start 0 --end 49`."""

import argparse
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["phase"])
    parser.add_argument("number", choices=["1"])
    parser.add_argument("--start", type=int, required=True)
    parser.add_argument("--end", type=int, required=True)
    args = parser.parse_args()
    # chunk_runner.py says where a chunk's outputs go; without it they go where they always did
    folder = Path(os.environ.get("PHASE1_OUTPUT_DIR", "data/phase1_plain"))
    folder.mkdir(parents=True, exist_ok=True)
    items = range(args.start, args.end + 1)
    prompts = [f"a page with {item % 7} columns and {item % 11} pictures" for item in items]
    scores = [float(np.random.default_rng(item).normal()) for item in items]
    table = pa.table({"item": list(items), "prompt": prompts, "score": scores})
    pq.write_table(table, folder / "dataset.parquet")
    print(f"phase 1: items {args.start} to {args.end} written to {folder}")


if __name__ == "__main__":
    main()
