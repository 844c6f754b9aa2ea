"""open_clip's image encoder, without the rest of its package.

`import open_clip` brings transformers, all models of torchvision, timm and torch._dynamo: more time
than all else that a start takes. The encoder stands in one file, which needs few others.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from types import ModuleType

__all__ = ["LayerNorm", "VisionTransformer"]


@contextmanager
def _bare(*packages: str) -> Iterator[None]:
    """Leave out the `__init__` of packages while modules of theirs are imported.

    The modules stay, and are the same ones where a whole package is imported later.

    Args:
        packages: each before those inside it.
    """
    added = []
    try:
        for name in packages:
            if name in sys.modules:
                continue
            outer = sys.modules.get(name.rpartition(".")[0])
            spec = PathFinder.find_spec(name, None if outer is None else outer.__path__)
            if spec is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            module = ModuleType(name)
            module.__path__ = list(spec.submodule_search_locations or ())
            sys.modules[name] = module
            added.append(name)
        yield
    finally:
        for name in added:
            del sys.modules[name]


with _bare("torchvision", "torchvision.ops", "open_clip"):
    from open_clip.transformer import LayerNorm, VisionTransformer
