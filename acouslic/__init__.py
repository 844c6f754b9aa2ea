"""Fetal abdominal circumference from blind ultrasound sweeps: a stack in, a measurement out.

A public name loads its module when it is first used, so that `import acouslic` and the commands'
`--help` need neither torch nor numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = ["Measurement", "load_bundle", "measure", "read_stack"]
__version__ = "0.2.0"

if TYPE_CHECKING:
    from acouslic.bundle import load_bundle
    from acouslic.pipeline import Measurement, measure
    from acouslic.stack import read_stack
else:  # A type checker would take any name for one of this package.
    _MODULES = {
        "Measurement": "pipeline",
        "load_bundle": "bundle",
        "measure": "pipeline",
        "read_stack": "stack",
    }

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
