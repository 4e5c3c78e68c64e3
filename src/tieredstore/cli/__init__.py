"""The command ``tieredstore``: parse, call, print. No logic: each verb is one call of the store.

``main`` runs it, ``commands`` lists the verbs, the other modules have them, each group of verbs
with its arguments in one. A new verb goes into one of those, or a file of its own.
"""

from tieredstore.cli.main import run

__all__ = ["run"]
