"""The command ``tieredstore``: parse, call, print. No logic: each verb is one call of the store.

``main`` runs it, ``commands`` lists the verbs, ``looking``, ``moving``, ``keeping``, ``tidying``
and ``doctor`` have them, each with its own arguments. A new verb goes into one of those, or a
file of its own.
"""

from tieredstore.cli.main import run

__all__ = ["run"]
