"""Samples of files: what tells one checkpoint from another before all of its bytes are read."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from tasks.base.json_digest import digest_of

BLOCK, BLOCKS = 4096, 256
"""Bytes of a block, and how many are read of a file: one of up to a megabyte is read whole."""


def sample_of(paths: Iterable[Path]) -> str:
    """Return the digest of a model's file names, sizes and sampled bytes; trainer_state.json does not count.

    Models with different samples are different; those with equal ones have to be digested to tell.
    """
    deciding = sorted(path for path in paths if path.name != "trainer_state.json")
    return digest_of([(path.name, path.stat().st_size, _sampled(path)) for path in deciding])


def _sampled(path: Path) -> str:
    """Digest blocks that are spread evenly over a file, its first and its last among them."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        last = max(os.fstat(file.fileno()).st_size - BLOCK, 0)
        for position in sorted({last * i // (BLOCKS - 1) for i in range(BLOCKS)}):
            digest.update(os.pread(file.fileno(), BLOCK, position))
    return digest.hexdigest()
