"""On which file system a path lies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

NETWORK_TYPES = frozenset(
    {
        *("9p", "afs", "beegfs", "ceph", "cifs", "fuse.ceph"),
        *("fuse.glusterfs", "fuse.juicefs", "fuse.sshfs", "gfs2", "glusterfs", "gpfs"),
        *("lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "panfs"),
        *("smb3", "smbfs", "virtiofs", "wekafs"),
    }
)


@dataclass(frozen=True)
class Mount:
    """One mounted file system."""

    point: Path
    kind: str

    @property
    def over_network(self) -> bool:
        """Whether other machines serve the files."""
        return self.kind in NETWORK_TYPES


def parse_mounts(mountinfo: str) -> tuple[Mount, ...]:
    """Return the mounts in the text of /proc/self/mountinfo (proc(5): fields up to a lone `-`, then the type)."""
    rows = (line.split(" - ") for line in mountinfo.splitlines() if " - " in line)
    return tuple(Mount(Path(_unescape(head.split()[4])), tail.split()[0]) for head, tail in rows)


def mount_of(path: Path, mounts: tuple[Mount, ...]) -> Mount | None:
    """Return the mount that holds an absolute path; of two at one point the later one hides the earlier."""
    found: Mount | None = None
    for mount in mounts:
        deeper = found is None or len(mount.point.parts) >= len(found.point.parts)
        if path.is_relative_to(mount.point) and deeper:
            found = mount
    return found


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
