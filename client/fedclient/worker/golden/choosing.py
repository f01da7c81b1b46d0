"""Selection of golden pictures: from the held-out share by default, and by hand if they never trained.

The split ledger decides what trains. The golden side of it never does, so the set is taken from there; a
picture that is added by hand gets a place on that side before its copy is made, so that it cannot come to
train later when the same file turns up in the plant's folder.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Iterator, List, Sequence

from fedclient.worker.golden.pictures import GoldenPicture, GoldenSet, digest_of
from fedspect.data.classes import ClassList
from fedspect.data.decode import read_bytes
from fedspect.data.split import SplitLedger
from fedspect.errors import DataError
from fedspect.locking import exclusive

GOLDEN = "golden"
TRAINS = "train"


@contextlib.contextmanager
def sides_kept(state: Path) -> Iterator[SplitLedger]:
    """The plant's ledger of sides, written back at the end of the block; one process at a time.

    Raises:
        DamagedFileError: the ledger is not what was written.
        StorageError: it cannot be written.

    """
    with exclusive(state / "sides.lock"):
        ledger = SplitLedger.load(state / "sides.json")
        yield ledger
        ledger.save(state / "sides.json")


def add_by_hand(
    golden: GoldenSet, paths: Sequence[Path], label: str, *, classes: ClassList, state: Path
) -> List[GoldenPicture]:
    """Add files that never trained; ``state`` is the folder with the plant's ledger.

    Raises:
        ClassError: no such class in this federation.
        DataError: a file trains already.
        PictureError: one cannot be read; none was added then.
        StorageError: the set is as it was.

    """
    name = classes.resolve(label)
    with sides_kept(state) as ledger:
        digests = {path: digest_of(read_bytes(path)) for path in paths}
        trained = [path for path in paths if ledger.side_of(digests[path]) == TRAINS]
        if trained:
            raise DataError(
                "a picture that trains cannot be golden: it would praise every model",
                seen=", ".join(str(path) for path in trained[:5]),
                accepted="pictures that were not in the plant's folder when it joined, or are held out",
            )
        for digest in digests.values():
            ledger.reserve(digest, GOLDEN)
    return golden.add(paths, name)
