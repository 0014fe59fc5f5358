"""The directory in which a server keeps files, batches and traces."""

import os
from pathlib import Path
from tempfile import TemporaryFile

_PROBE = bytes(4096)


def fault(directory: Path) -> str | None:
    """Why nothing can be kept there; None where something can. Makes the directory where it is missing."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=directory) as file:
            file.write(_PROBE)
            # Some disks take what they have no room for until it has to be there.
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return None
