"""The command ``datasets-prep``, and what a ``prepare.py`` calls: parse, call, print.

``main`` runs it; each group of verbs has a file with an ``add``, listed in ``main``.
"""

from datasets_prep.cli.main import run
from datasets_prep.cli.preparing import prepare_script

__all__ = ["prepare_script", "run"]
