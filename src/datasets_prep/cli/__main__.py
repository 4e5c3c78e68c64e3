"""``python -m datasets_prep.cli``."""

from datasets_prep.cli.main import run

if __name__ == "__main__":
    raise SystemExit(run())
