"""Locality-sensitive hashing: candidate pairs of overlapping pictures, without comparing every pair.

Keypoints with like descriptions fall into the same bucket of a hash table: each bit of the hash says on which
side of a plane a description lies (Charikar 2002, random hyperplanes). Several tables make up for bits that
noise turns. Only keypoints of one bucket are compared, and at most NEIGHBOURS of them each, so the work grows
with the number of keypoints, not with its square. Two keypoints that match vote for the shift between their
pictures; a pair of pictures with two votes for one shift is a candidate.

The numbers are whole throughout, so every machine makes the same guesses.
"""

from __future__ import annotations

from typing import List, Optional, Sequence

import numpy as np

from fedspect.data.near_duplicates.keypoints import Keypoints

TABLES = 16
NEIGHBOURS = 32
ALIKE = 0.8
"""Least correlation of two descriptions that match."""
LEAST_VOTES = 2
SHIFTS = 1 << 13
"""Shifts lie between -SHIFTS / 2 and SHIFTS / 2 pixels."""
CHUNK = 1 << 18


def find_candidates(keypoints: Sequence[Keypoints], *, fresh: Optional[Sequence[bool]] = None) -> np.ndarray:
    """Pairs of pictures that may overlap: int64 (M, 5), first, second, row shift, column shift, votes.

    The second picture's (row, column) is the first's (row + row shift, column + column shift). First <
    second; most votes first. With ``fresh``, only pairs with at least one picture that is marked in it.
    """
    owner = np.repeat(np.arange(len(keypoints)), [len(each.places) for each in keypoints])
    if not len(owner):
        return np.zeros((0, 5), np.int64)
    places = np.concatenate([each.places for each in keypoints]).astype(np.int64)
    descriptions = np.concatenate([each.descriptions for each in keypoints])
    news = np.ones(len(keypoints), bool) if fresh is None else np.asarray(fresh, bool)
    matches = _matches(descriptions, owner, news)
    first, second = matches // len(owner), matches % len(owner)
    shifts = places[first] - places[second]
    pairs = owner[first] * len(keypoints) + owner[second]
    return _elected(pairs, shifts, len(keypoints))


def _matches(descriptions: np.ndarray, owner: np.ndarray, news: np.ndarray) -> np.ndarray:
    """Pairs of keypoints alike, as first * L + second, without repeats; int64."""
    count = len(owner)
    bits = min(max(int(np.ceil(np.log2(count))), 8), 60)
    random = np.random.RandomState(1)  # its streams are the same in every version of numpy
    values = descriptions.astype(np.float32)
    found: List[np.ndarray] = []
    for _ in range(TABLES):
        planes = (random.randint(0, 2, (descriptions.shape[1], bits)) * 2 - 1).astype(np.float32)
        code = (values @ planes > 0) @ (1 << np.arange(bits, dtype=np.int64))
        order = np.lexsort((random.permutation(count), code))
        code = code[order]
        for step in range(1, NEIGHBOURS + 1):
            at = np.nonzero(code[step:] == code[:-step])[0]
            if not len(at):
                break
            one, other = order[at], order[at + step]
            one, other = np.minimum(one, other), np.maximum(one, other)
            useful = (owner[one] != owner[other]) & (news[owner[one]] | news[owner[other]])
            found.append(_alike(values, one[useful], other[useful]))
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)


def _alike(values: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    kept = [np.zeros(0, np.int64)]
    for start in range(0, len(one), CHUNK):
        a, b = one[start : start + CHUNK], other[start : start + CHUNK]
        like = np.einsum("ij,ij->i", values[a], values[b]) > ALIKE * 127 * 127
        kept.append(a[like].astype(np.int64) * len(values) + b[like])
    return np.concatenate(kept)


def _elected(pairs: np.ndarray, shifts: np.ndarray, count: int) -> np.ndarray:
    """Of each pair the shift with the most votes, those of its eight neighbours counted with its own."""
    order = np.argsort(pairs, kind="stable")
    pairs, shifts = pairs[order], shifts[order]
    _, inverse, votes = np.unique(pairs, return_inverse=True, return_counts=True)
    several = votes[inverse] >= LEAST_VOTES
    pairs, shifts = pairs[several], shifts[several]
    near = np.array([row * SHIFTS + column for row in (-1, 0, 1) for column in (-1, 0, 1)], np.int64)
    elected: List[np.ndarray] = [np.zeros((0, 5), np.int64)]
    start = 0
    while start < len(pairs):
        end = min(start + CHUNK, len(pairs))
        end = int(np.searchsorted(pairs, pairs[end - 1], side="right"))  # a pair is not cut in two
        numbers, number = np.unique(pairs[start:end], return_inverse=True)
        places = (shifts[start:end, 0] + SHIFTS // 2) * SHIFTS + shifts[start:end, 1] + SHIFTS // 2
        keys = (number.astype(np.int64) * SHIFTS * SHIFTS + places)[:, None] + near
        bins, counts = np.unique(keys.ravel(), return_counts=True)
        owner = bins // (SHIFTS * SHIFTS)
        best = np.lexsort((bins, -counts, owner))
        best = best[np.unique(owner[best], return_index=True)[1]]
        best = best[counts[best] >= LEAST_VOTES]
        place = bins[best] % (SHIFTS * SHIFTS)
        pair = numbers[owner[best]]
        row, column = place // SHIFTS - SHIFTS // 2, place % SHIFTS - SHIFTS // 2
        elected.append(np.stack([pair // count, pair % count, row, column, counts[best]], axis=1))
        start = end
    rows = np.concatenate(elected)
    return rows[np.lexsort((rows[:, 1], rows[:, 0], -rows[:, 4]))]
