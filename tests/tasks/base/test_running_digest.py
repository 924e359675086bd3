"""A running digest is BLAKE3's of the file up to every end, in whatever order and from whichever thread its parts come."""

import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base import running_digest
from tasks.base.errors import BadInput
from tasks.base.running_digest import RunningDigest

CONTENT = random.Random(0).randbytes(10_000)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("running") / "weights"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def opened(file: Path) -> Callable[..., RunningDigest]:
    def opened(*rest: Any, path: Path = file) -> RunningDigest:
        return RunningDigest(path, os.open(path, os.O_RDONLY), *rest)

    return opened


def expected(end: int) -> str:
    return blake3(CONTENT[:end]).hexdigest()


PLACES = st.lists(st.integers(0, len(CONTENT)), max_size=12).map(lambda own: sorted({0, *own, len(CONTENT)}))


@settings(max_examples=200, deadline=None)
@given(st.data(), PLACES, st.sampled_from([0, 500, 2**25]))
def test_parts_in_any_order_twice_or_never_give_the_digest(
    file: Path, data: st.DataObject, places: list[int], kept: int
) -> None:
    parts = list(pairwise(places))
    fate = data.draw(
        st.lists(st.sampled_from(["passes", "absent", "never"]), min_size=len(parts), max_size=len(parts))
    )
    passing = [part for part, own in zip(parts, fate, strict=True) if own == "passes"]
    passing = data.draw(st.permutations(passing + data.draw(st.lists(st.sampled_from(parts), max_size=3))))
    handle = os.open(file, os.O_RDONLY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running_digest, "KEPT_BYTES", kept)
        running = RunningDigest(file, handle, places)
        for (first, last), own in zip(parts, fate, strict=True):
            if own == "absent":
                running.absent(first, last)
        asked = data.draw(st.integers(0, len(passing)))
        for number, (first, last) in enumerate(passing):
            if number == asked:  # in the middle, as a journal does
                assert running.up_to(places[len(places) // 2]) == expected(places[len(places) // 2])
            running.passed(first, memoryview(CONTENT)[first:last])
        assert [running.up_to(end) for end in places] == [expected(end) for end in places]
    os.close(handle)


def test_parts_that_overlap_are_taken_once(opened: Callable[..., RunningDigest]) -> None:
    """The first elements of a tensor are looked at before it is read."""
    running, view = opened([10_000]), memoryview(CONTENT)
    for first, last in [(0, 100), (5000, 5064), (0, 5000), (5000, 10_000)]:
        running.passed(first, view[first:last])
    assert running.up_to(10_000) == expected(10_000)


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_side_by_side_give_the_digest(opened: Callable[..., RunningDigest], threads: int) -> None:
    for seed in range(20):
        running, parts = opened([3000, 10_000]), list(range(0, 10_000, 50))
        near = random.Random(seed)
        parts.sort(key=lambda first: first + near.uniform(0, 400))
        with ThreadPoolExecutor(threads) as pool:
            asked = pool.submit(running.up_to, 3000)
            for first in parts:
                pool.submit(running.passed, first, memoryview(CONTENT)[first : first + 50])
        assert [asked.result(), running.up_to(10_000)] == [expected(3000), expected(10_000)]


def test_it_goes_on_from_what_was_digested_before(opened: Callable[..., RunningDigest]) -> None:
    running = opened([4000, 10_000], blake3(CONTENT[:4000]), 4000)
    assert [running.up_to(4000), running.up_to(10_000)] == [expected(4000), expected(10_000)]


def test_what_passed_is_not_read(opened: Callable[..., RunningDigest], tmp_path: Path) -> None:
    """The file is another by now; a digest of it would be wrong."""
    (tmp_path / "weights").write_bytes(bytes(10_000))
    running = opened([10_000], path=tmp_path / "weights")
    for first in range(0, 10_000, 1000):
        running.passed(first, memoryview(CONTENT)[first : first + 1000])
    assert running.up_to(10_000) == expected(10_000)


def test_a_file_that_became_shorter_is_named(opened: Callable[..., RunningDigest], file: Path) -> None:
    with pytest.raises(BadInput, match=f"{file}: became shorter while it was read; fetch"):
        opened([20_000]).up_to(20_000)


def test_who_digests_takes_over_what_others_bring(opened: Callable[..., RunningDigest]) -> None:
    """No thread waits for another's digesting, and nothing is left when it ends."""
    running, view = opened([10_000]), memoryview(CONTENT)
    with running._turn:
        brought = threading.Thread(target=running.passed, args=(0, view[:6000]))
        brought.start()
        brought.join(10)
        assert not brought.is_alive()
    running.passed(6000, view[6000:])
    assert running.up_to(10_000) == expected(10_000)
