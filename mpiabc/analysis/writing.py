"""Files for other programs: whole, or as they were."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole(output: str | os.PathLike[str]) -> Iterator[Path]:
    """The path of a file to be written, which then takes the place of `output`; if that fails, nothing does.

    It ends as `output` does, and has its permissions. It is `output` itself if that is a device, a pipe or
    standard output, or a file in a folder that takes no other. Raises OSError.
    """
    given, path = Path(output), Path(os.path.realpath(output))
    if given.exists() and (not given.is_file() or _stays(given) or not os.access(path.parent, os.W_OK)):
        yield given
        return
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield part
        if path.exists():
            shutil.copymode(path, part)
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _stays(path: Path) -> bool:
    """Whether others have it open by a name that says so, as /dev/stdout does."""
    return any(path.absolute().is_relative_to(folder) for folder in ("/dev", "/proc"))
