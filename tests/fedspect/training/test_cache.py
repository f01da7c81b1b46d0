from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import List, Sequence, Tuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedspect.errors import DamagedFileError, StorageError
from fedspect.files import TEMPORARY_PREFIX
from fedspect.training import cache as cache_module
from fedspect.training.cache import STALE_AFTER, FeatureCache
from fedspect.training.segments import SUFFIX, Entry, read_segment, write_segment

ROOM = 1 << 30
SHAPE = (4, 3, 3)


def rows_of(entries: Sequence[Entry], shape: Tuple[int, ...] = SHAPE) -> np.ndarray:
    """Features that follow from the entry, so that a mix-up shows."""
    return np.stack(
        [np.random.default_rng(list(f"{a}/{b}".encode())).normal(size=shape) for a, b in entries]
    ).astype(np.float16)


def entries_of(first: int, count: int) -> List[Entry]:
    return [(f"{number:032x}", "0") for number in range(first, first + count)]


def fill(cache: FeatureCache, first: int, count: int = 4) -> List[Entry]:
    entries = entries_of(first, count)
    assert cache.add(entries, rows_of(entries))
    return entries


def found(cache: FeatureCache, entry: Entry) -> bool:
    row = cache.find(entry)
    if row is not None:
        assert np.array_equal(row, rows_of([entry])[0])
    return row is not None


def segments(folder: Path) -> List[Path]:
    return sorted(folder.rglob(f"*{SUFFIX}"))


def used_at(path: Path, hours_ago: float) -> None:
    then = time.time() - hours_ago * 3600
    os.utime(path, (then, then))


def test_features_come_back_bit_for_bit_also_in_a_new_process(tmp_path: Path) -> None:
    entries = fill(FeatureCache(tmp_path, ROOM, key="k"), 0, 10)
    reopened = FeatureCache(tmp_path, ROOM, key="k")
    assert len(reopened) == 10
    assert all(found(reopened, entry) for entry in entries)
    row = reopened.find(entries[3])
    assert row is not None and row.dtype == np.float16 and not row.flags.writeable


def test_unknown_entries_and_other_keys_are_not_found(tmp_path: Path) -> None:
    entries = fill(FeatureCache(tmp_path, ROOM, key="one"), 0)
    other = FeatureCache(tmp_path, ROOM, key="two")
    assert other.find(entries[0]) is None and entries[0] not in other
    assert FeatureCache(tmp_path, ROOM, key="one").find(("f" * 32, "0")) is None


def test_a_process_sees_what_another_added_after_a_refresh(tmp_path: Path) -> None:
    mine, theirs = FeatureCache(tmp_path, ROOM, key="k"), FeatureCache(tmp_path, ROOM, key="k")
    entries = fill(theirs, 0)
    assert mine.find(entries[0]) is None
    mine.refresh()
    assert found(mine, entries[0])


def test_a_feature_that_two_processes_computed_outlives_the_loss_of_one_copy(tmp_path: Path) -> None:
    fill(FeatureCache(tmp_path, ROOM, key="k"), 0)
    fill(FeatureCache(tmp_path, ROOM, key="k"), 0)
    reader = FeatureCache(tmp_path, ROOM, key="k")
    assert len(segments(tmp_path)) == 2 and len(reader) == 4
    segments(tmp_path)[0].unlink()
    assert all(found(reader, entry) for entry in entries_of(0, 4))


@pytest.mark.parametrize("place", [0, 9, 100, -5000, -1])  # magic, length, header, rows, the last row
def test_a_changed_byte_is_noticed_and_the_segment_dropped(tmp_path: Path, place: int) -> None:
    entries = fill(FeatureCache(tmp_path, ROOM, key="k"), 0, 100)
    (path,) = segments(tmp_path)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))
    reader = FeatureCache(tmp_path, ROOM, key="k")
    assert reader.find(entries[0]) is None
    assert segments(tmp_path) == []


@pytest.mark.parametrize("length", [0, 7, 11, 60, 5000, -1])
def test_a_cut_off_segment_is_dropped(tmp_path: Path, length: int) -> None:
    entries = fill(FeatureCache(tmp_path, ROOM, key="k"), 0, 100)
    (path,) = segments(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    assert FeatureCache(tmp_path, ROOM, key="k").find(entries[0]) is None
    assert segments(tmp_path) == []


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=300))
def test_any_bytes_are_read_as_a_segment_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"x{SUFFIX}"
    for start in (b"", b"FEDFEAT1"):
        path.write_bytes(start + content)
        with pytest.raises(DamagedFileError):
            read_segment(path)


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.lists(st.text(max_size=20), min_size=1, max_size=9, unique=True),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
)
def test_a_segment_reads_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, tokens: List[str], shape: List[int]
) -> None:
    entries = [("d", token) for token in tokens]
    rows = np.random.default_rng(1).normal(size=(len(tokens), *shape)).astype(np.float16)
    path = tmp_path_factory.mktemp("segments") / f"x{SUFFIX}"
    written = write_segment(path, "key", entries, rows)
    read = read_segment(path)
    assert read == written and list(read.entries) == entries
    assert np.array_equal(read.rows(check=True), rows)


def test_a_process_killed_while_writing_leaves_only_a_temporary_file_that_is_removed_later(
    tmp_path: Path,
) -> None:
    program = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        import numpy as np
        from fedspect.training.cache import FeatureCache
        cache = FeatureCache(Path(sys.argv[1]), 1 << 30, key="k")
        cache.add([("a", "0")], np.ones((1, 4), dtype=np.float16))
        os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
        cache.add([("b", "0")], np.ones((1, 4), dtype=np.float16))
        """
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    died = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment, timeout=120)
    assert died.returncode == -signal.SIGKILL
    (left,) = list((tmp_path / "k").glob(f"{TEMPORARY_PREFIX}*"))
    reader = FeatureCache(tmp_path, ROOM, key="k")
    assert ("a", "0") in reader and ("b", "0") not in reader
    assert left.exists()  # it may belong to a process that still writes
    used_at(left, STALE_AFTER / 3600 + 1)
    reader.refresh()
    assert not left.exists()


def test_two_processes_write_at_once_and_all_is_found(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        import numpy as np
        from fedspect.training.cache import FeatureCache
        cache = FeatureCache(Path(sys.argv[1]), 1 << 30, key="k")
        for number in range(int(sys.argv[2]), int(sys.argv[2]) + 40):
            rows = np.full((2, 50), number, dtype=np.float16)
            cache.add([(str(number), "0"), (str(number), "1")], rows)
            cache.refresh()
        """
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), start], env=environment)
        for start in ("0", "20")
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    reader = FeatureCache(tmp_path, ROOM, key="k")
    assert len(reader) == 120
    for number in range(60):
        row = reader.find((str(number), "1"))
        assert row is not None and (row == number).all()


def test_the_segments_unused_for_longest_go_first_also_those_of_other_keys(tmp_path: Path) -> None:
    fill(FeatureCache(tmp_path, ROOM, key="old"), 0)
    oldest = segments(tmp_path)[0]
    used_at(oldest, 5)
    fill(FeatureCache(tmp_path, ROOM, key="k"), 10)
    newer = next(path for path in segments(tmp_path) if path != oldest)
    used_at(newer, 2)
    writer = FeatureCache(tmp_path, 3 * oldest.stat().st_size + 5000, key="k")
    fill(writer, 20)
    assert oldest.exists() and newer.exists()
    fill(writer, 30)
    assert not oldest.exists() and newer.exists()
    fill(writer, 40)
    assert not newer.exists()
    assert not found(writer, entries_of(10, 1)[0]) and found(writer, entries_of(20, 1)[0])


def test_reading_a_segment_makes_it_recent(tmp_path: Path) -> None:
    entries = fill(FeatureCache(tmp_path, ROOM, key="k"), 0)
    (path,) = segments(tmp_path)
    used_at(path, 5)
    found(FeatureCache(tmp_path, ROOM, key="k"), entries[0])
    assert time.time() - path.stat().st_mtime < 3600


def test_what_is_in_use_is_never_evicted_and_new_features_are_refused(tmp_path: Path) -> None:
    writer = FeatureCache(tmp_path, 40_000, key="k")
    first = fill(writer, 0)
    number = 1
    while writer.add(entries_of(number * 100, 4), rows_of(entries_of(number * 100, 4))):
        number += 1
    assert number > 1 and found(writer, first[0])
    writer.release()
    assert writer.add(entries_of(9000, 4), rows_of(entries_of(9000, 4)))


def test_a_segment_that_is_read_again_after_a_release_is_in_use_again_and_recent(tmp_path: Path) -> None:
    writer = FeatureCache(tmp_path, 40_000, key="k")
    kept = fill(writer, 0)
    (path,) = segments(tmp_path)
    found(writer, kept[0])
    writer.release()
    used_at(path, 5)
    found(writer, kept[0])
    assert time.time() - path.stat().st_mtime < 3600
    for number in range(1, 12):
        writer.add(entries_of(number * 100, 4), rows_of(entries_of(number * 100, 4)))
    assert path.exists()


def test_a_file_that_another_process_is_writing_is_not_evicted(tmp_path: Path) -> None:
    writer = FeatureCache(tmp_path, 40_000, key="k")
    fill(writer, 0)
    writing = tmp_path / "k" / f"{TEMPORARY_PREFIX}x{SUFFIX}"
    writing.write_bytes(bytes(9000))
    for number in range(1, 12):
        writer.release()
        writer.add(entries_of(number * 100, 4), rows_of(entries_of(number * 100, 4)))
    assert writing.exists() and sum(path.stat().st_size for path in segments(tmp_path)) <= 40_000


def test_the_limit_holds_over_all_keys_whatever_is_added(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    limit = 100_000
    for number in range(40):
        cache = FeatureCache(tmp_path, limit, key=f"key-{number % 3}")
        entries = entries_of(number * 1000, int(random.integers(1, 200)))
        cache.add(entries, rows_of(entries))
        assert sum(path.stat().st_size for path in segments(tmp_path)) <= limit


def test_features_larger_than_the_limit_are_refused_without_evicting_anything(tmp_path: Path) -> None:
    kept = fill(FeatureCache(tmp_path, ROOM, key="k"), 0)
    small = FeatureCache(tmp_path, 20_000, key="k")
    entries = entries_of(100, 1000)
    assert not small.add(entries, rows_of(entries))
    assert found(small, kept[0])


def test_a_segment_that_another_process_evicts_stays_readable_where_it_is_mapped(tmp_path: Path) -> None:
    entries = fill(FeatureCache(tmp_path, ROOM, key="k"), 0)
    reader, late = FeatureCache(tmp_path, ROOM, key="k"), FeatureCache(tmp_path, ROOM, key="k")
    assert found(reader, entries[0])
    segments(tmp_path)[0].unlink()
    assert found(reader, entries[1])
    assert late.find(entries[1]) is None and entries[1] not in late


def test_few_segments_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "OPEN_SEGMENTS", 3)
    writer = FeatureCache(tmp_path, ROOM, key="k")
    groups = [fill(writer, 100 * number, 2) for number in range(10)]
    reader = FeatureCache(tmp_path, ROOM, key="k")
    for _ in range(2):
        assert all(found(reader, entry) for group in groups for entry in group)
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert sum(str(tmp_path) in os.readlink(link) for link in links) <= 3


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = FeatureCache(tmp_path / "file", ROOM, key="k")
    with pytest.raises(StorageError):
        cache.add(entries_of(0, 1), rows_of(entries_of(0, 1)))
