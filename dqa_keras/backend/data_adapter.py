"""Batches of model inputs out of whatever a Keras user has.

Arrays, `tf.data.Dataset`, `keras.utils.PyDataset` and generators are read the way
`model.fit` reads them: a tuple is `(x, y)` or `(x, y, sample_weight)`; only x is used.
Where the model has several inputs, a list or tuple of as many arrays is x, and so is a
dictionary by input name. A function without arguments, such as TFLite's
`representative_dataset`, is called for its batches.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from dqa_keras.backend.replicas import is_distributed


def _is_array(data: Any) -> bool:
    return hasattr(data, "shape") and hasattr(data, "dtype")


def _declared_inputs(model: keras.Model | None) -> list[Any]:
    """A model's inputs as a flat list; none where it is subclassed."""
    return keras.tree.flatten(getattr(model, "inputs", None) or [])


def fixed_batch_size(model: keras.Model) -> int | None:
    """The batch size that a model's inputs declare, or None where any will do."""
    return next((x.shape[0] for x in _declared_inputs(model) if x.shape[0]), None)


def model_inputs(model: keras.Model | None, batch: Any) -> Any:
    """The inputs of a batch, in the structure of the model's own inputs.

    Args:
        model: Keras model, or None if nothing is known of its inputs.
        batch: x, `(x, y)` or `(x, y, sample_weight)`. For a model with several inputs x
            may be a list of arrays or a dictionary by input name.

    Returns:
        x. If it does not fit the model, it is given back as it is; see `check_fit`.

    Raises:
        ValueError: If the batch is a list of more than three parts, or of numbers.
    """
    declared = _declared_inputs(model)
    _check_parts(batch, len(declared))
    if isinstance(batch, (list, tuple)) and len(batch) == len(declared) > 3:
        x = list(batch)  # too many for (x, y, sample_weight)
    else:
        x = keras.utils.unpack_x_y_sample_weight(batch)[0]
    if not declared:
        return x
    if (
        isinstance(batch, (list, tuple))
        and len(keras.tree.flatten(x)) != len(declared)
        and len(batch) == len(declared)
    ):
        x = list(batch)
    structure: Any = getattr(model, "input", None)
    if isinstance(x, Mapping):
        by_structure = isinstance(structure, dict)
        keys = list(structure) if by_structure else [y.name for y in declared]
        if not set(keys) <= set(x):
            return x
        chosen = {key: x[key] for key in keys}
        leaves = keras.tree.flatten(chosen) if by_structure else list(chosen.values())
    else:
        leaves = keras.tree.flatten(x)
    if len(leaves) != len(declared):
        return x
    if len(leaves) == 1 and not isinstance(structure, dict):
        return leaves[0]
    return keras.tree.pack_sequence_as(structure, leaves)


def _check_parts(batch: Any, inputs: int) -> None:
    """Raises ValueError unless a batch may be x, labels and weights as arrays."""
    kind = type(batch).__name__
    first = batch
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    if isinstance(first, (int, float, complex, str, bytes)):
        raise ValueError(
            "inputs must be arrays: make one with numpy.asarray(data, 'float32'). "
            "Received: "
            + (kind if first is batch else f"a {kind} of {type(first).__name__}")
        )
    if isinstance(batch, (list, tuple)) and 3 < len(batch) != inputs:
        raise ValueError(
            "a batch must be x, (x, y) or (x, y, sample_weight), or an array for each "
            f"of the model's {inputs} inputs. Received: a {kind} of {len(batch)}"
        )


def _holds_arrays(data: Any, model: keras.Model | None) -> bool:
    """Whether data is all inputs as arrays, rather than batches one by one."""
    leaves = keras.tree.flatten(data)
    if not leaves or not all(map(_is_array, leaves)):
        return False
    declared = _declared_inputs(model)
    # A list of more arrays than the model has inputs holds batches.
    return not (declared and isinstance(data, list) and len(leaves) != len(declared))


def _slices(data: Any, batch_size: int, model: keras.Model | None) -> Iterator[Any]:
    # As in `fit`: a tuple is (x, y) or (x, y, sample_weight), a list is several inputs.
    if isinstance(data, tuple) or _declared_inputs(model):
        data = model_inputs(model, data)
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


def batch_count(
    data: Any, batch_size: int, model: keras.Model | None = None
) -> int | None:
    """How many batches `batches` gives, or None if only reading will tell."""
    _check_batch_size(batch_size)
    if _holds_arrays(data, model):
        return -(-len(keras.tree.flatten(data)[0]) // batch_size)
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches
    if isinstance(data, list):
        return len(data)
    if hasattr(data, "cardinality"):
        count = int(data.cardinality())
        return count if count >= 0 else None
    return None


def batches(
    data: Any, batch_size: int, model: keras.Model | None = None
) -> Iterator[Any]:
    """Yields the x of each batch.

    Args:
        data: Arrays (sliced into batches), or a `tf.data.Dataset`, `PyDataset` or
            iterable of batches, or a function without arguments that gives one.
        batch_size: Integer. For arrays; the others come in batches of their own.
        model: Keras model that the batches are for. Defaults to `None`: nothing is
            known of its inputs.

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
    if callable(data) and not isinstance(data, (Iterable, keras.utils.PyDataset)):
        data = data()
    source: Iterable[Any]
    if _holds_arrays(data, model):
        # A tuple of one: a list of inputs must not be taken for (x, y) below.
        source = ((x,) for x in _slices(data, batch_size, model))
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
        yield model_inputs(model, batch)
    if empty:
        raise ValueError("the dataset is empty: at least one batch is needed")


def first_batch(model: keras.Model, data: Any, batch_size: int) -> tuple[Any, Any]:
    """The x of the first batch, and data that still holds that batch."""
    if not isinstance(data, Iterator):
        return next(batches(data, batch_size, model)), data
    head = list(itertools.islice(data, 1))
    x = next(batches(iter(head), batch_size, model))
    return x, itertools.chain(head, data)


def check_fit(model: keras.Model, x: Any) -> None:
    """Raises ValueError unless a batch has the shape of the model's inputs.

    Batch sizes are not compared: `fitting` cuts data to the one that a model declares.
    """
    expected = _declared_inputs(model)
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
            want in (None, size)
            for want, size in zip(wanted[1:], shape[1:], strict=True)
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
        size: Integer. Images per round. A batch size that the model's inputs declare
            takes its place; images that do not fill a last round are then left out.

    Attributes:
        images: Integer. How many images there will be, or None if only reading will
            tell; where batches are counted, those are taken to be like the first.

    Raises:
        ValueError: When read, if `data` is of another kind, holds no batch, has a batch
            that does not fit the model, or fewer images than the model's batch size.
    """

    def __init__(self, model: keras.Model, data: Any, size: int) -> None:
        self._model = model
        self._data = data
        self._fixed = fixed_batch_size(model)
        self._size = size = self._fixed or size
        arrays = _holds_arrays(data, model)
        self.images = len(keras.tree.flatten(data)[0]) if arrays else None
        self._batches = None if arrays else batch_count(data, size, model)

    def __iter__(self) -> Iterator[Any]:
        """Yields each round: NumPy arrays in the structure of the model's inputs."""
        pending = None
        whole = 0
        for batch in batches(self._data, self._size, self._model):
            check_fit(self._model, batch)
            x = keras.tree.map_structure(keras.ops.convert_to_numpy, batch)
            if self._batches is not None and self.images is None:
                self.images = self._batches * _length(x)
            if pending is not None and _shapes(pending) != _shapes(x):
                if not self._fixed:
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
                    whole += 1
                    pending = None
        if pending is not None and not self._fixed:
            yield pending
        elif pending is not None and not whole:
            raise ValueError(
                f"model {self._model.name!r} takes batches of {self._size} images. "
                f"Received: {_length(pending)} images in all"
            )


def _length(x: Any) -> int:
    return len(keras.tree.flatten(x)[0])


def _shapes(x: Any) -> list[tuple[int, ...]]:
    return [array.shape[1:] for array in keras.tree.flatten(x)]


def observed(
    model: keras.Model, data: Any, batch_size: int, verbose: int, title: str
) -> Iterator[Any]:
    """`fitting` batches, behind a progress bar."""
    size = fixed_batch_size(model) or batch_size
    yield from tqdm(
        fitting(model, data, batch_size),
        desc=title,
        total=batch_count(data, size, model),
        unit="batch",
        disable=None if verbose else True,
    )


def fitting(model: keras.Model, data: Any, batch_size: int) -> Iterator[Any]:
    """The x of each batch, in the structure and shape of the model's inputs.

    Data is cut into batches of the size that the model's inputs declare, if any.

    Raises:
        ValueError: As for `batches`, and if a batch does not fit the model.
    """
    if fixed_batch_size(model):
        yield from Rounds(model, data, batch_size)
        return
    for x in batches(data, batch_size, model):
        check_fit(model, x)
        yield x


def samples(model: keras.Model, data: Any) -> Any:
    """One batch: whole arrays, or the first 32 images of data that is read in batches.

    Args:
        model: Keras model.
        data: Arrays in any structure that `model_inputs` knows, or data as for
            `batches`.

    Returns:
        The batch, in the structure of the model's inputs.
    """
    read_one_by_one = (
        callable(data)
        or isinstance(data, keras.utils.PyDataset)
        or (
            isinstance(data, Iterable)
            and not _is_array(data)
            and not isinstance(data, (list, tuple, Mapping))
        )
    )
    if read_one_by_one or (isinstance(data, list) and not _holds_arrays(data, model)):
        return next(iter(Rounds(model, data, 32)))
    return model_inputs(model, data)
