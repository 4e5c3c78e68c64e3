"""Downloads, extracts and verifies WebSight-v2; where it goes stands in config/websight.toml.

    python scripts/download_dataset.py --url https://host/websight-v2.tar.gz
    python scripts/download_dataset.py --hf-repo owner/name --hf-file websight-v2.tar.gz
    python scripts/download_dataset.py --local-path /data/websight-v2.tar.gz

The same command goes on with what was interrupted. All options: --help.
"""

import tomllib
from pathlib import Path

from datasets_prep.cli.downloading import download_script

CONFIG = Path(__file__).parents[1] / "config" / "websight.toml"

if __name__ == "__main__":
    settings = tomllib.loads(CONFIG.read_text(encoding="utf-8"))
    download_script(Path(settings["dest"]), settings["spec"])
