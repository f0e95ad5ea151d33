"""Modules that have moved: files and fingerprints know their classes by the names that these had first.

So do pickles of users' own, and their imports, which find the module where it is now, with a
DeprecationWarning.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

FORMER = {
    "mpiabc.kernels.coupling": "mpiabc.coupling",
    "mpiabc.kernels.covariance": "mpiabc.covariance",
    "mpiabc.kernels.curve": "mpiabc.curve",
    "mpiabc.kernels.discrete": "mpiabc.discrete",
    "mpiabc.kernels.free": "mpiabc.free",
    "mpiabc.kernels.gaussian": "mpiabc.kernel",
    "mpiabc.kernels.mixture": "mpiabc.mixture",
    "mpiabc.priors.constraint": "mpiabc.constraint",
    "mpiabc.priors.joint": "mpiabc.joint",
    "mpiabc.priors.marginals": "mpiabc.marginals",
    "mpiabc.priors.prior": "mpiabc.prior",
    "mpiabc.thresholds": "mpiabc.threshold",
}
_FOLDERS = {"mpiabc.distances": "mpiabc.distance"}  # as a whole
_NOW, _FOLDERS_NOW = ({first: now for now, first in names.items()} for names in (FORMER, _FOLDERS))


def former(module: str) -> str:
    """The name that a module had first; that of any other as it is."""
    return FORMER.get(module) or _renamed(module, _FOLDERS)


def present(module: str) -> str:
    """Where a module is now that had this name first."""
    return _NOW.get(module) or _renamed(module, _FOLDERS_NOW)


def _renamed(module: str, folders: dict[str, str]) -> str:
    for one, other in folders.items():
        if module == one or module.startswith(f"{one}."):
            return other + module.removeprefix(one)
    return module


class _Former(MetaPathFinder, Loader):
    """What imports by a first name lead to: the module itself, of which there is one."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Ours, if it is a first name."""
        is_former = name.startswith("mpiabc.") and present(name) != name
        return ModuleSpec(name, self) if is_former else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module that has moved in the place of an empty one."""
        now = present(module.__name__)
        warnings.warn(f"{module.__name__} is {now} now", DeprecationWarning, stacklevel=2)
        sys.modules[module.__name__] = import_module(now)


def find_former() -> None:
    """Let imports find modules by their first names; before others, as a room leads to its new files, too."""
    if not any(isinstance(finder, _Former) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Former())
