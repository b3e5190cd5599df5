"""The check of one HDF5 file as a program of its own, because the HDF5 library can crash on damaged metadata."""

from __future__ import annotations

import sys

from sartor.share.artifact.hdf5 import open_hdf5
from sartor.share.errors import InputRefusedError


def main(path: str) -> int:
    """Open and close a file; print why it is refused and return 1."""
    try:
        open_hdf5(path).close()
    except InputRefusedError as error:
        print(error.reason)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
