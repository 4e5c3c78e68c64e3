"""For those who test a store or write a backend: the contract suite, samples, fault injectors.

Shipped with the package. Only ``contract.py`` needs pytest, and it is loaded when it is asked
for, so that the rest also serves in processes without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tieredstore.testing.contract import BackendContract

__all__ = ["BackendContract"]


def __getattr__(name: str) -> object:
    if name != "BackendContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    modules = (f"{__name__}.{module}" for module in ("contract", "publishing", "reading"))
    pytest.register_assert_rewrite(*modules)
    from tieredstore.testing.contract import BackendContract

    return BackendContract
