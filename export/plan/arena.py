"""Gives everything that shares the arena a place in it."""

import dataclasses
from collections.abc import Iterable, Sequence

_ALIGNMENT = 64


def align(size: int) -> int:
    """The next multiple of 64, with which everything in the arena begins."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


@dataclasses.dataclass
class Item:
    """Something in the arena from one stage to another, both included."""

    size: int
    first: int
    last: int
    offset: int = -1


def _place(items: Sequence[Item], leads: dict[tuple[int, int], int]) -> int:
    """Gives every item an offset, first fit in the given order; returns the end."""
    placed: list[int] = []

    def fits(i: int, offset: int) -> bool:
        item = items[i]
        for j in placed:
            other = items[j]
            if item.last < other.first or other.last < item.first:
                continue
            if offset + item.size <= other.offset:
                continue
            if other.offset + other.size <= offset:
                continue
            if (j, i) in leads and offset + leads[j, i] <= other.offset:
                continue
            if (i, j) in leads and other.offset + leads[i, j] <= offset:
                continue
            return False
        return True

    for i, item in enumerate(items):
        candidates = {0}
        for j in placed:
            other = items[j]
            candidates.add(align(other.offset + other.size))
            if (j, i) in leads:
                start = other.offset - leads[j, i]
                if start >= 0:
                    candidates.add(start // _ALIGNMENT * _ALIGNMENT)
            if (i, j) in leads:
                candidates.add(align(other.offset + leads[i, j]))
        item.offset = min(offset for offset in candidates if fits(i, offset))
        placed.append(i)
    return max((item.offset + item.size for item in items), default=0)


def best_place(items: list[Item], leads: dict[tuple[int, int], int]) -> int:
    """Tries several orders and keeps the one that ends lowest."""
    numbers = range(len(items))
    orders: list[Iterable[int]] = [
        sorted(numbers, key=lambda i: (items[i].first, -items[i].size)),
        sorted(numbers, key=lambda i: (items[i].first, items[i].size)),
        sorted(numbers, key=lambda i: -items[i].size),
        sorted(numbers, key=lambda i: (items[i].first - items[i].last, -items[i].size)),
        sorted(
            numbers, key=lambda i: (items[i].first == items[i].last, items[i].first)
        ),
    ]
    results = []
    for order in map(list, orders):
        at = {number: position for position, number in enumerate(order)}
        end = _place(
            [items[i] for i in order],
            {(at[old], at[new]): lead for (old, new), lead in leads.items()},
        )
        results.append((end, [item.offset for item in items]))
    end, offsets = min(results)
    for item, offset in zip(items, offsets, strict=True):
        item.offset = offset
    return end
