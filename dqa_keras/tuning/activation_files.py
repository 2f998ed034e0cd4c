"""Activations of all images, on disk: memory does not grow with their number."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from dqa_keras.backend import data_adapter

# The tensors that are alive at one place of a model, of all images.
State = list[NDArray]


class Kept:
    """Activations of all images, in files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0

    def keep(self, batches: Iterator[State]) -> State:
        """Writes tensors batch by batch; each comes back as one array on disk."""
        with ExitStack() as stack:
            outs: list[Any] = []
            images, kinds = 0, []
            for arrays in batches:
                if not outs:
                    kinds = [(array.dtype, array.shape[1:]) for array in arrays]
                    paths = [self._next() for _ in arrays]
                    outs = [stack.enter_context(path.open("wb")) for path in paths]
                for array, out in zip(arrays, outs, strict=True):
                    np.ascontiguousarray(array).tofile(out)
                images += len(arrays[0])
        stored: State = []
        for path, (dtype, shape) in zip(paths, kinds, strict=True):
            stored.append(np.memmap(path, dtype, "r", shape=(images, *shape)))
            path.unlink()  # the file is gone once nothing reads the array any more
        return stored

    def _next(self) -> Path:
        self._number += 1
        return self._folder / str(self._number)


class Images(NamedTuple):
    """All inputs of a model.

    Args:
        structure: A batch in the structure that the model takes.
        leaves: List of arrays (N, ...) on disk, one for each input.
    """

    structure: Any
    leaves: State

    def batches(self, size: int) -> Iterator[Any]:
        """Yields batches of `size` images, in the structure that the model takes."""
        for part in parts(len(self.leaves[0]), size):
            leaves = [leaf[part] for leaf in self.leaves]
            yield (keras.tree.pack_sequence_as(self.structure, leaves),)


def read(model: keras.Model, data: Any, size: int, least: int, kept: Kept) -> Images:
    """Inputs of a model, all of them.

    Args:
        model: Keras model.
        data: Inputs, as for `calibrate`.
        size: Integer. Images that are read at once.
        least: Integer. How many there must be.
        kept: `Kept` that takes them.

    Returns:
        `Images`.

    Raises:
        ValueError: If there are fewer, or their shapes differ.
    """
    structure: list[Any] = []

    def leaves() -> Iterator[State]:
        for x in data_adapter.Rounds(model, data, size):
            arrays = keras.tree.flatten(x)
            structure[:] = structure or [x]
            first = [leaf.shape[1:] for leaf in keras.tree.flatten(structure[0])]
            if [leaf.shape[1:] for leaf in arrays] != first:
                raise ValueError(
                    "reconstruction needs images of one shape. Received: "
                    f"{first[0]} and {arrays[0].shape[1:]}"
                )
            yield arrays

    stored = kept.keep(leaves())
    if len(stored[0]) < least:
        raise ValueError(
            f"reconstruction needs at least {least} images. Received: {len(stored[0])}"
        )
    return Images(structure[0], stored)


def parts(count: int, size: int) -> list[slice]:
    """Slices of so many images, `size` each."""
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]
