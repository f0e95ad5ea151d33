"""Modules that have moved: files and fingerprints know their classes by the names that these had first."""

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


def former(module: str) -> str:
    """The name that a module had first; that of any other as it is."""
    return FORMER.get(module) or _renamed(module, _FOLDERS)


def present(module: str) -> str:
    """Where a module is now that had this name first."""
    now = {old: new for new, old in FORMER.items()}
    return now.get(module) or _renamed(module, {old: new for new, old in _FOLDERS.items()})


def _renamed(module: str, folders: dict[str, str]) -> str:
    for one, other in folders.items():
        if module == one or module.startswith(f"{one}."):
            return other + module.removeprefix(one)
    return module
