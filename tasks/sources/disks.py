"""Which disks several machines share."""

from pathlib import Path

import psutil

SHARED_DISKS = {
    *("afs", "beegfs", "ceph", "cifs", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2"),
    *("panfs", "pvfs2", "smb3", "smbfs", "wekafs"),
}
"""File systems of several machines, by their names in the table of mounts."""
FUSE = "fuse."
LOCAL_FUSE = {"fuse.fuse-overlayfs", "fuse.bindfs", "fuse.mergerfs"}


def is_shared(directory: Path) -> bool:
    """Tell whether a directory lies on a file system that other machines can have mounted, too."""
    place = directory.resolve()
    mounts = {Path(each.mountpoint): each.fstype for each in psutil.disk_partitions(all=True)}
    kind = next((mounts[each] for each in (place, *place.parents) if each in mounts), "")
    return kind in SHARED_DISKS or (kind.startswith(FUSE) and kind not in LOCAL_FUSE)
