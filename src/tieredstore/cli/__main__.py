"""``python -m tieredstore.cli``."""

from tieredstore.cli.main import run

if __name__ == "__main__":
    raise SystemExit(run())
