"""vggrepro: the tables of Simonyan & Zisserman (arXiv 1409.1556), reproduced from the command line and from Python.

The names of `__all__` are those of `vggrepro.api`; they are looked up when they are first used, so that
`import vggrepro` is quick and imports no torch (docs/python.md).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vggrepro.api import (
        InputError,
        check_claims,
        draw_figures,
        evaluate_run,
        import_weights,
        load_data,
        load_net,
        load_run,
        make_tables,
        new_net,
        predict_files,
        preprocess,
        read_posteriors,
        score_image,
    )

__version__ = "0.2.0"
__all__ = [
    "InputError",
    "check_claims",
    "draw_figures",
    "evaluate_run",
    "import_weights",
    "load_data",
    "load_net",
    "load_run",
    "make_tables",
    "new_net",
    "predict_files",
    "preprocess",
    "read_posteriors",
    "score_image",
]


def __getattr__(name: str) -> Any:
    """A public name, imported on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'vggrepro' has no attribute '{name}'")
    value = getattr(import_module("vggrepro.api"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
