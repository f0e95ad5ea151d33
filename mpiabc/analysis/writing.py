"""Files for other programs: whole, or as they were."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole(output: str | os.PathLike[str]) -> Iterator[Path]:
    """The path of a file to be written, which then takes the place of `output`; if that fails, nothing does.

    It ends as `output` does, and is `output` itself if that is a device or a pipe. Raises OSError.
    """
    path = Path(os.path.realpath(output))
    if path.exists() and not path.is_file():
        yield Path(output)
        return
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
