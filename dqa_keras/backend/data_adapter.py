"""Batches of model inputs out of whatever a Keras user has.

Arrays, `tf.data.Dataset`, `keras.utils.PyDataset` and generators are read the way
`model.fit` reads them: a tuple is `(x, y)` or `(x, y, sample_weight)`; only x is used.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from dqa_keras.backend.replicas import is_distributed


def _is_array(data: Any) -> bool:
    return hasattr(data, "shape") and hasattr(data, "dtype")


def _slices(data: Any, batch_size: int) -> Iterator[Any]:
    # As in `fit`: a tuple is (x, y) or (x, y, sample_weight), a list is several inputs.
    if isinstance(data, tuple):
        data = keras.utils.unpack_x_y_sample_weight(data)[0]
    sizes = [len(array) for array in keras.tree.flatten(data)]
    if len(set(sizes)) > 1:
        raise ValueError(f"all inputs must have the same length. Received: {sizes}")
    for start in range(0, sizes[0], batch_size):
        yield keras.tree.map_structure(
            lambda array, start=start: array[start : start + batch_size], data
        )


def _check_batch_size(batch_size: Any) -> None:
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(
            f"batch_size must be a positive integer. Received: batch_size={batch_size}"
        )


def batch_count(data: Any, batch_size: int) -> int | None:
    """How many batches `batches` gives, or None if only reading will tell."""
    _check_batch_size(batch_size)
    leaves = keras.tree.flatten(data)
    if leaves and all(_is_array(leaf) for leaf in leaves):
        return -(-len(leaves[0]) // batch_size)
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches
    if hasattr(data, "cardinality"):
        count = int(data.cardinality())
        return count if count >= 0 else None
    return None


def batches(data: Any, batch_size: int) -> Iterator[Any]:
    """Yields the x of each batch.

    Args:
        data: Arrays (sliced into batches), or a `tf.data.Dataset`, `PyDataset` or
            iterable of batches.
        batch_size: Integer. For arrays; the others come in batches of their own.

    Raises:
        ValueError: If `data` is of another kind, or holds no batch at all, or
            `batch_size` is not positive.
    """
    _check_batch_size(batch_size)
    if is_distributed(data):
        raise ValueError(
            "data must not be distributed: every worker reads all of it and computes "
            "its share. Give the tf.data.Dataset that it was made from."
        )
    leaves = keras.tree.flatten(data)
    source: Iterable[Any]
    if leaves and all(_is_array(leaf) for leaf in leaves):
        # A tuple of one: a list of inputs must not be taken for (x, y) below.
        source = ((x,) for x in _slices(data, batch_size))
    elif isinstance(data, keras.utils.PyDataset):
        count = data.num_batches
        if count is None:
            raise ValueError("a PyDataset without an end cannot be used: set its size")
        source = (data[index] for index in range(count))
    elif isinstance(data, Iterable) and not isinstance(data, (str, bytes, dict)):
        source = data
    else:
        raise ValueError(
            "data must be arrays, a tf.data.Dataset, a PyDataset or an iterable of "
            f"batches. Received: {type(data).__name__}"
        )
    empty = True
    for batch in source:
        empty = False
        yield keras.utils.unpack_x_y_sample_weight(batch)[0]
    if empty:
        raise ValueError("the dataset is empty: at least one batch is needed")


def first_batch(data: Any, batch_size: int) -> tuple[Any, Any]:
    """The x of the first batch, and data that still holds that batch."""
    if not isinstance(data, Iterator):
        return next(batches(data, batch_size)), data
    head = list(itertools.islice(data, 1))
    return next(batches(iter(head), batch_size)), itertools.chain(head, data)


def check_fit(model: keras.Model, x: Any) -> None:
    """Raises ValueError unless a batch has the shape of the model's inputs."""
    expected = keras.tree.flatten(getattr(model, "inputs", None) or [])
    received = keras.tree.flatten(x)
    if isinstance(x, dict) and {tensor.name for tensor in expected} <= set(x):
        received = [x[tensor.name] for tensor in expected]
    if not expected:
        return
    if len(expected) != len(received):
        raise ValueError(
            f"model {model.name!r} has {len(expected)} inputs. "
            f"Received: {len(received)} arrays a batch"
        )
    for tensor, array in zip(expected, received, strict=True):
        shape = tuple(np.shape(array))
        wanted = tuple(tensor.shape)
        fits = len(shape) == len(wanted) and all(
            want in (None, size) for want, size in zip(wanted, shape, strict=True)
        )
        if not fits:
            unbatched = len(shape) + 1 == len(wanted)
            raise ValueError(
                f"input {tensor.name!r} must have shape {wanted}. Received: {shape}"
                + (". Is a batch axis missing (data.batch(32))?" if unbatched else "")
            )


class Rounds:
    """The images of a stream in rounds of one size, wherever its batches end.

    What a model computes of an image may depend, in the last bit, on the images that
    are computed with it. In rounds it depends on the image's place in the stream alone.
    A round is shorter at the end of the data and where images change their shape.

    Args:
        model: Keras model that every batch must fit.
        data: Arrays, a `tf.data.Dataset`, a `PyDataset` or an iterable of batches.
        size: Integer. Images a round.

    Attributes:
        images: Integer. How many images there will be, or None if only reading will
            tell; where batches are counted, those are taken to be like the first.

    Raises:
        ValueError: When read, if `data` is of another kind, holds no batch, or has a
            batch that does not fit the model.
    """

    def __init__(self, model: keras.Model, data: Any, size: int) -> None:
        self._model = model
        self._data = data
        self._size = size
        leaves = keras.tree.flatten(data)
        arrays = leaves and all(_is_array(leaf) for leaf in leaves)
        self.images = len(leaves[0]) if arrays else None
        self._batches = None if arrays else batch_count(data, size)

    def __iter__(self) -> Iterator[Any]:
        """Yields each round: NumPy arrays in the structure of the model's inputs."""
        pending = None
        for batch in batches(self._data, self._size):
            check_fit(self._model, batch)
            x = keras.tree.map_structure(keras.ops.convert_to_numpy, batch)
            if self._batches is not None and self.images is None:
                self.images = self._batches * _length(x)
            if pending is not None and _shapes(pending) != _shapes(x):
                yield pending
            elif pending is not None:
                x = keras.tree.map_structure(
                    lambda *parts: np.concatenate(parts), pending, x
                )
            pending = None
            for start in range(0, _length(x), self._size):
                pending = keras.tree.map_structure(
                    lambda a, start=start: a[start : start + self._size], x
                )
                if _length(pending) == self._size:
                    yield pending
                    pending = None
        if pending is not None:
            yield pending


def _length(x: Any) -> int:
    return len(keras.tree.flatten(x)[0])


def _shapes(x: Any) -> list[tuple[int, ...]]:
    return [array.shape[1:] for array in keras.tree.flatten(x)]


def observed(
    model: keras.Model, data: Any, batch_size: int, verbose: int, title: str
) -> Iterator[Any]:
    """Batches that fit the model, behind a progress bar."""
    source = tqdm(
        batches(data, batch_size),
        desc=title,
        total=batch_count(data, batch_size),
        unit="batch",
        disable=None if verbose else True,
    )
    for x in source:
        check_fit(model, x)
        yield x
