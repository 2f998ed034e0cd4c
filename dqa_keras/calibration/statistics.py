"""One pass over the data: what reaches each quantizer, and a few of the images.

The model runs as it is. Each quantizer's input is reduced to an `Observer`, so memory
does not grow with the data. With b images a round, p sampled
positions an image (at most 128), C channels of all quantizers together and C' of the
widest, calibration takes, beyond what `predict` takes with batches of b images,

    4 KiB C + max(4 bytes b p C + (12 KiB + 16 bytes b p) C', 80 KiB C')

where no activation is negative; 4, 12 and 80 KiB count twice where some are, and
workers hold the first term twice. The traced graph comes on top: tens of MiB, whatever
the data. `benchmarks/growth.py` measures both.

The data is cut into rounds of `batch_size` images. Every worker reads all rounds and
computes its share of them. One worker computes a round whole, and `Observer`s merge
exactly, so the result does not depend on the number of workers. From time to time the
workers merge their observers, and each writes the result to its checkpoint.
"""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from tqdm import tqdm

from dqa_keras.backend import data_adapter
from dqa_keras.calibration import sensitivity
from dqa_keras.calibration.checkpoint import Checkpoint, Progress, digest
from dqa_keras.calibration.distribution import WorkerGroup
from dqa_keras.calibration.observers import Observer
from dqa_keras.graph import hooks
from dqa_keras.layers import Quantizer, quantizer_layers

# Positions of each image that enter the histograms: counting every value would take
# longer than the forward pass. Ranges and the check for NaN see every value.
_POSITIONS = 128

_GOLDEN = 0.6180339887498949


def _summarize(layer: Quantizer, inputs: Any) -> tuple[Any, Any]:
    """Samples (M, C); smallest, largest, summed values (C,); size; passes inputs on."""
    x = ops.cast(inputs, "float32")
    axes = list(range(x.ndim - 1))
    minimum, maximum = ops.min(x, axes), ops.max(x, axes)
    # A sum is finite only if all its values are; `min` and `max` may drop a NaN.
    total = ops.sum(x, axes)
    batch, *spatial, channels = ops.shape(x)
    positions: Any = 1
    for size in spatial:
        positions = positions * size
    rows = ops.reshape(x, (batch, positions, channels))
    if not isinstance(positions, int) or positions > _POSITIONS:
        # Golden-ratio steps spread evenly and never line up with rows of pixels.
        spread = np.modf(np.arange(_POSITIONS) * _GOLDEN)[0].astype(np.float32)
        index = ops.cast(spread * ops.cast(positions, "float32"), "int32")
        rows = ops.take(rows, ops.minimum(index, positions - 1), axis=1)
    samples = ops.reshape(rows, (-1, channels))
    return (samples, minimum, maximum, total, ops.size(x)), inputs


class Statistics(NamedTuple):
    """The result of one pass over the data.

    Args:
        progress: `Progress` after all images.
        sample: A batch of some of them, or None if none were asked for.
    """

    progress: Progress
    sample: Any

    @property
    def observers(self) -> dict[str, Observer]:
        """`Observer`s by quantizer name."""
        return self.progress.observers

    @property
    def images(self) -> int:
        """Number of images read."""
        return self.progress.images


class _Reservoir:
    """A uniform sample of the images of a stream (Vitter's algorithm R)."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._random = np.random.default_rng(seed)
        self._sample: list[Any] = []
        self._seen = 0

    def add(self, x: Any) -> None:
        if not self._size:
            return
        arrays = keras.tree.map_structure(np.asarray, x)
        for row in range(len(keras.tree.flatten(arrays)[0])):
            slot = self._seen
            if self._seen >= self._size:
                slot = int(self._random.integers(self._seen + 1))
            self._seen += 1
            if slot < self._size:
                image = keras.tree.map_structure(lambda a, row=row: a[row], arrays)
                self._sample[slot : slot + 1] = [image]

    def batch(self) -> Any:
        if not self._sample:
            return None
        return keras.tree.map_structure(lambda *rows: np.stack(rows), *self._sample)


class _Round(NamedTuple):
    """Images that are computed together, by one worker."""

    first: int  # index of the first image
    x: Any


class _Reader:
    """Reads the rounds of a stream, as many at a time as all workers compute at once.

    Attributes:
        images: Integer. How many images were read.
        digest: Integer. Their CRC-32, or 0 if it is not needed.
    """

    def __init__(
        self,
        rounds: data_adapter.Rounds,
        workers: WorkerGroup,
        checked: bool,
        verbose: int,
    ) -> None:
        self._rounds = rounds
        self._source = iter(rounds)
        self._at_once = workers.size * workers.replicas
        self._checked = checked
        self._bar = tqdm(
            desc="calibrate", unit="image", disable=None if verbose else True
        )
        self.images = 0
        self.digest = 0

    def skip(self, progress: Progress, reservoir: "_Reservoir") -> None:
        """Reads the images that a checkpoint has seen, and verifies their CRC."""
        if self.images >= progress.images:
            return
        while self.images < progress.images:
            skipped = self._next()
            if skipped is None:
                raise ValueError(
                    f"the checkpoint has seen {progress.images} images, but the data "
                    f"holds {self.images}. Give the same data, or delete the "
                    "checkpoint to start over."
                )
            reservoir.add(skipped.x)
        if self.digest != progress.digest:
            raise ValueError(
                f"the first {progress.images} images are not those that the "
                "checkpoint has seen. Give the same data in the same order, not "
                "shuffled, or delete the checkpoint to start over."
            )

    def next_rounds(self) -> list[_Round]:
        """One round per replica of each worker; fewer at the end, and then none."""
        rounds = (self._next() for _ in range(self._at_once))
        return [one for one in rounds if one is not None]

    def _next(self) -> _Round | None:
        x = next(self._source, None)
        if x is None:
            self._bar.total = self.images
            self._bar.close()
            return None
        current = _Round(self.images, x)
        leaves = keras.tree.flatten(x)
        self.images += len(leaves[0])
        if self._checked:
            self.digest = digest(leaves, self.digest)
        if self._rounds.images is not None:
            self._bar.total = max(self._rounds.images, self.images)
        self._bar.update(len(leaves[0]))
        return current


class _LocalStatistics:
    """What this worker has observed since the workers last merged."""

    def __init__(
        self, model: keras.Model, workers: WorkerGroup, loss: sensitivity.Loss | None
    ) -> None:
        self._workers = workers
        self._names = [layer.name for layer in quantizer_layers(model)]
        self._observe = hooks.observing_replicas(model, _summarize, workers.strategy)
        self._backward = sensitivity.observing(model, loss) if loss else None
        self.observers: dict[str, Observer] = {}

    def compute(self, rounds: list[_Round]) -> list[Any]:
        """Reports and gradients at the quantizers, of this worker's share of rounds."""
        first = self._workers.rank * self._workers.replicas
        own = rounds[first : first + self._workers.replicas]
        for one in own:
            _check_inputs(one)
        observed = self._observe([one.x for one in own]) if own else []
        for one, reports in zip(own, observed, strict=True):
            _check_reports(one, reports)
        gradients = [self._backward(one.x) if self._backward else () for one in own]
        return list(zip(observed, gradients, strict=True))

    def add(self, computed: list[Any]) -> None:
        """Adds results of `compute` to the observers."""
        for reports, gradients in computed:
            for layer, (samples, minimum, maximum, _, size) in reports:
                if layer.name not in self.observers:
                    self.observers[layer.name] = Observer(minimum.size)
                self.observers[layer.name].update(samples, minimum, maximum)
                self.observers[layer.name].values += int(size)
            for layer, squares in gradients:
                self.observers[layer.name].add_gradients(squares)

    def merge(self, into: dict[str, Observer]) -> None:
        """Adds every worker's observers, one layer at a time to save memory."""
        for name in self._names:
            own = self.observers.pop(name, None)
            for arrays in self._workers.all_gather({} if own is None else own.arrays()):
                if arrays:
                    other = Observer.from_arrays(arrays)
                    into.setdefault(name, Observer(other.maximum.size)).merge(other)


def _check_inputs(current: _Round) -> None:
    # A convolution fused with its ReLU turns NaN into 0 on some CPUs: it must be found
    # where it enters.
    for leaf in keras.tree.flatten(current.x):
        bad = ~np.isfinite(leaf).reshape(len(leaf), -1).all(1)
        if bad.any():
            raise ValueError(
                "the model's inputs must be finite. Received: NaN or infinity in image "
                f"{current.first + int(np.argmax(bad))}. Check the data."
            )


def _check_reports(current: _Round, reports: list[tuple[Quantizer, Any]]) -> None:
    for layer, (_, _, _, total, _) in reports:
        if not np.all(np.isfinite(total)):
            last = current.first + len(keras.tree.flatten(current.x)[0]) - 1
            raise ValueError(
                f"the activation in front of {layer.name!r} must be finite. "
                f"Received: NaN or infinity in images {current.first} to {last}. Check "
                "the data and the weights of the layers before it."
            )


def _gather_notes(
    workers: WorkerGroup, error: Exception | None, **values: Any
) -> list[Mapping[str, NDArray]]:
    """Each worker's values; an error of one worker is raised by all."""
    failure = np.array("" if error is None else str(error))
    notes = workers.all_gather(
        {"failure": failure, **{name: np.array(v) for name, v in values.items()}}
    )
    if error is not None:
        raise error
    for rank, note in enumerate(notes):
        if note["failure"]:
            raise ValueError(f"worker {rank}: {note['failure']}")
    return notes


def _check_same(notes: list[Mapping[str, NDArray]], name: str, what: str) -> None:
    values = [int(note[name]) for note in notes]
    if len(set(values)) > 1:
        raise ValueError(f"all workers must {what}. Received: {values}, by worker")


def _resume(
    local: _LocalStatistics, workers: WorkerGroup, checkpoint: Checkpoint
) -> tuple[Progress, bool]:
    """The progress to resume from, and whether any worker keeps a checkpoint.

    All workers resume from the checkpoint that has seen the most images.
    """
    error = None
    progress = Progress()
    try:
        progress = checkpoint.load()
    except ValueError as problem:
        error = problem
    notes = _gather_notes(
        workers,
        error,
        model=checkpoint.model,
        keeps=checkpoint.path is not None,
        images=progress.images,
        digest=progress.digest,
    )
    _check_same(notes, "model", "hold the same model, weights and batch_size")
    images = [int(note["images"]) for note in notes]
    furthest = int(np.argmax(images))
    if len(set(images)) > 1:
        local.observers = progress.observers if workers.rank == furthest else {}
        digest_there = int(notes[furthest]["digest"])
        errors = progress.errors if workers.rank == furthest else {}
        progress = Progress(images[furthest], digest_there, errors=errors)
        local.merge(progress.observers)
    return progress, any(bool(note["keeps"]) for note in notes)


def collect(
    model: keras.Model,
    data: Any,
    batch_size: int,
    verbose: int,
    keep: int,
    loss: sensitivity.Loss | None,
    workers: WorkerGroup | None = None,
    checkpoint: Checkpoint | None = None,
) -> Statistics:
    """Statistics of each quantizer's inputs, and a sample of the images.

    Args:
        model: Keras model whose quantizers let everything pass.
        data: Inputs, as for `calibrate`.
        batch_size: Integer. Images that are computed together.
        verbose: Integer. `0` hides the progress bar.
        keep: Integer. Size of the sample of the images, which is uniform.
        loss: Which loss the observers' `sensitivity` is measured with; `None` saves
            the backward pass.
        workers: `WorkerGroup` that shares the work. Defaults to one worker.
        checkpoint: `Checkpoint` to resume from and to write. Defaults to none.

    Returns:
        A `Statistics`.

    Raises:
        ValueError: If the data is empty or does not fit the model or the checkpoint, an
            activation holds NaN or infinity, or the workers' models or data differ.
        LostWorkerError: If another worker is gone.
    """
    workers = workers or WorkerGroup()
    checkpoint = checkpoint or Checkpoint(None, model, batch_size, loss)
    local = _LocalStatistics(model, workers, loss)
    progress, keeps = _resume(local, workers, checkpoint)
    alone = workers.size == 1
    if alone:
        local.observers = progress.observers
    # Whole batches, where the model takes no others.
    batch = data_adapter.fixed_batch_size(model) or 1
    keep = -(-keep // batch) * batch
    reservoir = _Reservoir(keep, quantizer_layers(model)[0].config.seed)
    rounds = data_adapter.Rounds(model, data, batch_size)
    reader = _Reader(rounds, workers, keeps or not alone, verbose)
    steps, done = 1, False
    while not done:
        error = None
        started = time.monotonic()
        whole = True
        try:
            reader.skip(progress, reservoir)
            for _ in range(steps):
                current = reader.next_rounds()
                done = not current
                computed = local.compute(current)
                whole = False
                local.add(computed)
                for one in current:
                    reservoir.add(one.x)
                if alone:
                    progress.images, progress.digest = reader.images, reader.digest
                whole = True
                if done:
                    break
        except BaseException as problem:
            if alone and whole:
                checkpoint.save(progress)
            if alone or not isinstance(problem, Exception):
                raise
            error = problem  # the others must hear of it, or they would wait
        notes = _gather_notes(
            workers,
            error,
            images=reader.images,
            digest=reader.digest,
            seconds=(time.monotonic() - started) / steps,
        )
        _check_same(notes, "images", "read the same images")
        _check_same(notes, "digest", "read the same images in the same order")
        if done or keeps:
            if not alone:
                local.merge(progress.observers)
            progress.images, progress.digest = reader.images, reader.digest
            checkpoint.save(progress)
        slowest = max(float(note["seconds"]) for note in notes)
        steps = max(1, int(checkpoint.seconds / max(slowest, 1e-6)))
    return Statistics(progress, reservoir.batch())
