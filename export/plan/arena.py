"""Gives everything that shares the arena a place in it."""

import dataclasses
import random
from collections.abc import Sequence

_ALIGNMENT = 64

# Needed during all calls of a stage.
ALWAYS = -1

# Items that are placed once more to find a lower end.
_EFFORT = 10_000


def align(size: int) -> int:
    """The next multiple of 64, with which everything in the arena begins."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


@dataclasses.dataclass
class Item:
    """Something in the arena from one stage to another, both included.

    Those of a single stage may say in `held` during which of its calls they are needed,
    a bit for each. `behind` are bytes that stay free behind it, at the arena's end.
    """

    size: int
    first: int
    last: int
    offset: int = -1
    held: int = ALWAYS
    behind: int = 0

    def end(self, offset: int) -> int:
        """Where the arena ends at least if the item has this offset."""
        return offset + self.size + self.behind


class _Neighbour:
    """An item that is in the arena at the same time as another one."""

    def __init__(self, number: int, size: int, before: int, behind: int) -> None:
        self.number = number
        self.size = size
        # How far the other one must begin in front of it to lie lower, and behind it to
        # lie higher: sizes, or leads where rows of one take the place of the other's.
        self.before = before
        self.behind = behind


def _neighbours(
    items: Sequence[Item], leads: dict[tuple[int, int], int]
) -> list[list[_Neighbour]]:
    """For each item those that it must not overwrite."""
    found: list[list[_Neighbour]] = [[] for _ in items]
    for i, item in enumerate(items):
        for j, other in enumerate(items):
            if i == j or item.last < other.first or other.last < item.first:
                continue
            if not item.held & other.held:
                continue
            before = leads.get((j, i), item.size)
            behind = leads.get((i, j), other.size)
            found[i].append(
                _Neighbour(
                    j, other.size, min(before, item.size), min(behind, other.size)
                )
            )
    return found


def _place(
    items: Sequence[Item], order: Sequence[int], near: list[list[_Neighbour]]
) -> tuple[int, list[int]]:
    """Gives every item an offset, first fit in the given order; the end and offsets."""
    offsets = [-1] * len(items)
    for i in order:
        placed = [n for n in near[i] if offsets[n.number] >= 0]
        candidates = {0}
        for other in placed:
            at = offsets[other.number]
            candidates.add(align(at + other.behind))
            if at >= other.before:
                candidates.add((at - other.before) // _ALIGNMENT * _ALIGNMENT)
        offsets[i] = next(
            offset
            for offset in sorted(candidates)
            if all(
                offset + n.before <= offsets[n.number]
                or offsets[n.number] + n.behind <= offset
                for n in placed
            )
        )
    end = max(
        (item.end(offset) for offset, item in zip(offsets, items, strict=True)),
        default=0,
    )
    return end, offsets


def best_place(items: list[Item], leads: dict[tuple[int, int], int]) -> int:
    """Gives every item an offset, with the lowest end of several orders.

    Args:
        items: List of `Item`.
        leads: Dictionary from pairs of items, one that dies while the other one is
            born, to how far the new one must begin in front of the old one.

    Returns:
        The end of the last item, and of what stays free behind it.
    """
    numbers = range(len(items))
    orders: list[list[int]] = [
        sorted(numbers, key=lambda i: (items[i].first, -items[i].size)),
        sorted(numbers, key=lambda i: (items[i].first, items[i].size)),
        sorted(numbers, key=lambda i: -items[i].size),
        # What shares memory with others comes last.
        sorted(
            numbers,
            key=lambda i: (items[i].held != ALWAYS, items[i].first, -items[i].size),
        ),
        sorted(
            numbers,
            key=lambda i: (items[i].first, items[i].held != ALWAYS, -items[i].size),
        ),
        sorted(numbers, key=lambda i: (items[i].first - items[i].last, -items[i].size)),
        sorted(
            numbers, key=lambda i: (items[i].first == items[i].last, items[i].first)
        ),
    ]
    near = _neighbours(items, leads)
    results = [_place(items, order, near) for order in orders]
    best = min(results)
    order = orders[results.index(best)]
    end, offsets = best
    choose = random.Random(0)
    for _ in range(_EFFORT // len(items) if items else 0):
        # What ends highest goes first, or somewhere in front, and all are placed anew.
        at = next(
            place for place, i in enumerate(order) if items[i].end(offsets[i]) == end
        )
        to = choose.choice([0, choose.randrange(at + 1)])
        order.insert(to, order.pop(at))
        end, offsets = _place(items, order, near)
        best = min(best, (end, offsets))
    for item, offset in zip(items, best[1], strict=True):
        item.offset = offset
    return best[0]
