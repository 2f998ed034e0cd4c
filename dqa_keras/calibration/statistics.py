"""One pass over the data: what reaches each quantizer, and a few of the images.

The model runs as it is; what it computes in front of each quantizer is reduced to an
`Observer`, so memory does not grow with the data. With b images a round, p sampled
positions an image (at most 128), C channels of all quantizers together and C' of the
widest, calibration takes, beyond what `predict` takes with batches of b images,

    4 KiB C + max(4 bytes b p C + (12 KiB + 16 bytes b p) C', 80 KiB C')

where no activation is negative; 4, 12 and 80 KiB count twice where they may be, and
workers hold the first term twice. The traced graph comes on top: tens of MiB, whatever
the data. `benchmarks/growth.py` measures both.

The data is cut into rounds of `batch_size` images. Workers read all of them and compute
every so many; a round is computed whole by one of them, and `Observer`s merge exactly,
so nothing depends on the number of workers. From time to time they compare notes, put
together what they have, and each writes it to its checkpoint.
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
from dqa_keras.calibration.distribution import Team
from dqa_keras.calibration.observers import Observer
from dqa_keras.graph import hooks
from dqa_keras.layers import Quantizer, quantizer_layers

# Positions of each image that enter the histograms: counting every value would take
# longer than the forward pass. Ranges and the check for NaN see every value.
_POSITIONS = 128

_GOLDEN = 0.6180339887498949


def _statistics(layer: Quantizer, inputs: Any) -> tuple[Any, Any]:
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


class Gathered(NamedTuple):
    """What one pass over the data gives.

    Args:
        progress: `Progress` after all images.
        kept: A batch of some of them, or None if none were to be kept.
    """

    progress: Progress
    kept: Any

    @property
    def observers(self) -> dict[str, Observer]:
        """`Observer`s by quantizer name."""
        return self.progress.observers

    @property
    def images(self) -> int:
        """How many images were seen."""
        return self.progress.images


class _Reservoir:
    """A uniform sample of the images of a stream (Vitter's algorithm R)."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._random = np.random.default_rng(seed)
        self._kept: list[Any] = []
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
                self._kept[slot : slot + 1] = [image]

    def batch(self) -> Any:
        if not self._kept:
            return None
        return keras.tree.map_structure(lambda *rows: np.stack(rows), *self._kept)


class _Round(NamedTuple):
    """Images that are computed together, by one worker."""

    first: int  # index of the first image
    x: Any


class _Reader:
    """Reads the rounds of a stream, as many at a time as all workers compute at once.

    Attributes:
        images: Integer. How many images were read.
        digest: Integer. Their CRC-32, or 0 if nobody asks for it.
    """

    def __init__(
        self, rounds: data_adapter.Rounds, team: Team, checked: bool, verbose: int
    ) -> None:
        self._rounds = rounds
        self._source = iter(rounds)
        self._at_once = team.size * team.replicas
        self._checked = checked
        self._bar = tqdm(
            desc="calibrate", unit="image", disable=None if verbose else True
        )
        self.images = 0
        self.digest = 0

    def skip(self, progress: Progress, reservoir: "_Reservoir") -> None:
        """Reads the images that a checkpoint has seen, and makes sure of it."""
        if self.images >= progress.images:
            return
        while self.images < progress.images:
            given = self._next()
            if given is None:
                raise ValueError(
                    f"the checkpoint has seen {progress.images} images, but the data "
                    f"holds {self.images}. Give the same data, or delete the "
                    "checkpoint to start over."
                )
            reservoir.add(given.x)
        if self.digest != progress.digest:
            raise ValueError(
                f"the first {progress.images} images are not those that the "
                "checkpoint has seen. Give the same data in the same order, not "
                "shuffled, or delete the checkpoint to start over."
            )

    def turn(self) -> list[_Round]:
        """The next rounds; fewer at the end, and then none."""
        given = (self._next() for _ in range(self._at_once))
        return [one for one in given if one is not None]

    def _next(self) -> _Round | None:
        x = next(self._source, None)
        if x is None:
            self._bar.total = self.images
            self._bar.close()
            return None
        given = _Round(self.images, x)
        leaves = keras.tree.flatten(x)
        self.images += len(leaves[0])
        if self._checked:
            self.digest = digest(leaves, self.digest)
        if self._rounds.images is not None:
            self._bar.total = max(self._rounds.images, self.images)
        self._bar.update(len(leaves[0]))
        return given


class _Share:
    """What this worker has computed since the workers last put theirs together."""

    def __init__(
        self, model: keras.Model, team: Team, loss: sensitivity.Loss | None
    ) -> None:
        self._team = team
        self._names = [layer.name for layer in quantizer_layers(model)]
        self._observe = hooks.observing_replicas(model, _statistics, team.strategy)
        self._backward = sensitivity.observing(model, loss) if loss else None
        self.observers: dict[str, Observer] = {}

    def computed(self, turn: list[_Round]) -> list[Any]:
        """What reaches the quantizers in this worker's part of a turn."""
        first = self._team.rank * self._team.replicas
        mine = turn[first : first + self._team.replicas]
        for given in mine:
            _check_inputs(given)
        found = self._observe([given.x for given in mine]) if mine else []
        for given, reports in zip(mine, found, strict=True):
            _check_reports(given, reports)
        gradients = [
            self._backward(given.x) if self._backward else () for given in mine
        ]
        return list(zip(found, gradients, strict=True))

    def add(self, found: list[Any]) -> None:
        """Takes in what `computed` gave."""
        for reports, gradients in found:
            for layer, (samples, minimum, maximum, _, size) in reports:
                if layer.name not in self.observers:
                    self.observers[layer.name] = Observer(minimum.size)
                self.observers[layer.name].update(samples, minimum, maximum)
                self.observers[layer.name].values += int(size)
            for layer, squares in gradients:
                self.observers[layer.name].add_gradients(squares)

    def merge(self, into: dict[str, Observer]) -> None:
        """Adds every worker's share, one layer at a time to save memory."""
        for name in self._names:
            own = self.observers.pop(name, None)
            for arrays in self._team.exchange({} if own is None else own.arrays()):
                if arrays:
                    other = Observer.from_arrays(arrays)
                    into.setdefault(name, Observer(other.maximum.size)).merge(other)


def _check_inputs(given: _Round) -> None:
    # A convolution fused with its ReLU turns NaN into 0 on some CPUs: it must be found
    # where it enters.
    for leaf in keras.tree.flatten(given.x):
        bad = ~np.isfinite(leaf).reshape(len(leaf), -1).all(1)
        if bad.any():
            raise ValueError(
                "the model's inputs must be finite. Received: NaN or infinity in image "
                f"{given.first + int(np.argmax(bad))}. Check the data."
            )


def _check_reports(given: _Round, reports: list[tuple[Quantizer, Any]]) -> None:
    for layer, (_, _, _, total, _) in reports:
        if not np.all(np.isfinite(total)):
            last = given.first + len(keras.tree.flatten(given.x)[0]) - 1
            raise ValueError(
                f"the activation in front of {layer.name!r} must be finite. "
                f"Received: NaN or infinity in images {given.first} to {last}. Check "
                "the data and the weights of the layers before it."
            )


def _compared(
    team: Team, error: Exception | None, **values: Any
) -> list[Mapping[str, NDArray]]:
    """The values of all workers; an error of one is raised by all."""
    failure = np.array("" if error is None else str(error))
    notes = team.exchange(
        {"failure": failure, **{name: np.array(v) for name, v in values.items()}}
    )
    if error is not None:
        raise error
    for rank, note in enumerate(notes):
        if note["failure"]:
            raise ValueError(f"worker {rank}: {note['failure']}")
    return notes


def _check_same(notes: list[Mapping[str, NDArray]], name: str, what: str) -> None:
    found = [int(note[name]) for note in notes]
    if len(set(found)) > 1:
        raise ValueError(f"all workers must {what}. Received: {found}, by worker")


def _resumed(
    share: _Share, team: Team, checkpoint: Checkpoint
) -> tuple[Progress, bool]:
    """Where the calibration goes on, and whether any worker keeps a checkpoint.

    A worker whose checkpoint is behind, or that has none, gets what the furthest has.
    """
    error = None
    progress = Progress()
    try:
        progress = checkpoint.load()
    except ValueError as problem:
        error = problem
    notes = _compared(
        team,
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
        share.observers = progress.observers if team.rank == furthest else {}
        digest_there = int(notes[furthest]["digest"])
        errors = progress.errors if team.rank == furthest else {}
        progress = Progress(images[furthest], digest_there, errors=errors)
        share.merge(progress.observers)
    return progress, any(bool(note["keeps"]) for note in notes)


def collect(
    model: keras.Model,
    data: Any,
    batch_size: int,
    verbose: int,
    keep: int,
    loss: sensitivity.Loss | None,
    team: Team | None = None,
    checkpoint: Checkpoint | None = None,
) -> Gathered:
    """Statistics of what reaches each quantizer, and a few images.

    Args:
        model: Keras model whose quantizers let everything pass.
        data: Inputs, as for `calibrate`.
        batch_size: Integer. Images that are computed together.
        verbose: Integer. `0` hides the progress bar.
        keep: Integer. How many images to keep; a uniform sample of all.
        loss: Which loss the observers' `sensitivity` belongs to; `None` saves the
            backward pass.
        team: `Team` of the workers that share the work. Defaults to one worker.
        checkpoint: `Checkpoint` to go on from and to write. Defaults to none.

    Returns:
        A `Gathered`.

    Raises:
        ValueError: If the data is empty or does not fit the model or the checkpoint, an
            activation holds NaN or infinity, or the workers' models or data differ.
        LostWorkerError: If another worker is gone.
    """
    team = team or Team()
    checkpoint = checkpoint or Checkpoint(None, model, batch_size, loss)
    share = _Share(model, team, loss)
    progress, keeps = _resumed(share, team, checkpoint)
    alone = team.size == 1
    if alone:
        share.observers = progress.observers
    reservoir = _Reservoir(keep, quantizer_layers(model)[0].config.seed)
    rounds = data_adapter.Rounds(model, data, batch_size)
    reader = _Reader(rounds, team, keeps or not alone, verbose)
    turns, done = 1, False
    while not done:
        error = None
        started = time.monotonic()
        whole = True
        try:
            reader.skip(progress, reservoir)
            for _ in range(turns):
                turn = reader.turn()
                done = not turn
                found = share.computed(turn)
                whole = False
                share.add(found)
                for given in turn:
                    reservoir.add(given.x)
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
        notes = _compared(
            team,
            error,
            images=reader.images,
            digest=reader.digest,
            seconds=(time.monotonic() - started) / turns,
        )
        _check_same(notes, "images", "read the same images")
        _check_same(notes, "digest", "read the same images in the same order")
        if done or keeps:
            if not alone:
                share.merge(progress.observers)
            progress.images, progress.digest = reader.images, reader.digest
            checkpoint.save(progress)
        slowest = max(float(note["seconds"]) for note in notes)
        turns = max(1, int(checkpoint.seconds / max(slowest, 1e-6)))
    return Gathered(progress, reservoir.batch())
