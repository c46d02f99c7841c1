"""Binary heaps in one array: a row each, whose entries are (first key, second key, item), smallest first.

The first entry of a row holds how many there are. `places[item]` is where an item is, 0 if it is nowhere; an
item may be in one heap at a time of those that share `places`. Entries with the same keys stay in the order
in which they came, and the last takes the place of one that is removed: that makes a row a list.
"""

from __future__ import annotations

import numpy as np

from simulators.jit import inlined
from simulators.keyed import Ints

WIDTH = 3


def new_heaps(rows: int, room: int) -> Ints:
    return np.zeros((rows, WIDTH * (room + 1)), np.int64)


@inlined
def size(heap):
    return heap[0]


@inlined
def first_key(heap):
    """Of the smallest; there must be one."""
    return heap[WIDTH]


@inlined
def second_key(heap):
    return heap[WIDTH + 1]


@inlined
def item(heap, place):
    """Places are counted from 1, which is the smallest."""
    return heap[WIDTH * place + 2]


@inlined
def before(heap, place, first, second):
    """Whether the entry at `place` is smaller than these keys."""
    there = heap[WIDTH * place]
    return there < first or (there == first and heap[WIDTH * place + 1] < second)


@inlined
def after(heap, place, first, second):
    there = heap[WIDTH * place]
    return there > first or (there == first and heap[WIDTH * place + 1] > second)


@inlined
def put(heap, places, place, first, second, which):
    heap[WIDTH * place] = first
    heap[WIDTH * place + 1] = second
    heap[WIDTH * place + 2] = which
    places[which] = place


@inlined
def move(heap, places, source, target):
    put(heap, places, target, heap[WIDTH * source], heap[WIDTH * source + 1], heap[WIDTH * source + 2])


@inlined
def push(heap, places, first, second, which):
    heap[0] += 1
    rise(heap, places, heap[0], first, second, which)


@inlined
def rise(heap, places, place, first, second, which):
    while place > 1 and after(heap, place // 2, first, second):
        move(heap, places, place // 2, place)
        place = place // 2
    put(heap, places, place, first, second, which)


@inlined
def sink(heap, places, place, first, second, which):
    count = heap[0]
    while 2 * place <= count:
        child = 2 * place
        if child < count and before(heap, child + 1, heap[WIDTH * child], heap[WIDTH * child + 1]):
            child += 1
        if not before(heap, child, first, second):
            break
        move(heap, places, child, place)
        place = child
    put(heap, places, place, first, second, which)


@inlined
def remove(heap, places, which):
    """Nothing if it is not there."""
    place, last = places[which], heap[0]
    if place == 0:
        return
    places[which] = 0
    heap[0] -= 1
    if place == last:
        return
    first, second, moved = heap[WIDTH * last], heap[WIDTH * last + 1], heap[WIDTH * last + 2]
    if place > 1 and after(heap, place // 2, first, second):
        rise(heap, places, place, first, second, moved)
    else:
        sink(heap, places, place, first, second, moved)
