"""Several workers that calibrate one model together, by `tf.distribute`.

Every worker reads all the data and computes its share of it; what they find is put
together with arithmetic that is exact under regrouping, so the result is the same, bit
for bit, whatever their number.

>>> import keras
>>> from dqa_keras.calibration import distribution
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
>>> team = distribution.team(model)
>>> team.size, team.rank, team.replicas
(1, 0, 1)
"""

import io
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dqa_keras.graph import hooks

Arrays = Mapping[str, Any]  # of NumPy arrays


class LostWorkerError(RuntimeError):
    """Another worker is gone, so the work cannot be finished together."""


class Team:
    """The workers that share the work; one that is alone by default.

    Args:
        strategy: `tf.distribute.MirroredStrategy` or `MultiWorkerMirroredStrategy`
            whose replicas compute. Defaults to `None`: one device.

    Attributes:
        size: Integer. Number of workers.
        rank: Integer. Which of them this one is, from 0.
        replicas: Integer. Devices of each worker that compute at once.
    """

    def __init__(self, strategy: Any = None) -> None:
        self.strategy = strategy
        self.replicas = hooks.replica_count(strategy)
        self.size = 1
        self.rank = 0
        if strategy is not None:
            self.size = strategy.num_replicas_in_sync // self.replicas
        if self.size > 1:
            self._gather = _gathering(strategy)
            self.rank = self._ranked()

    def _ranked(self) -> int:
        ids = self.strategy.experimental_distribute_values_from_function(
            lambda context: context.replica_id_in_sync_group
        )
        local = self.strategy.experimental_local_results(ids)
        return int(local[0]) // self.replicas

    def exchange(self, arrays: Arrays) -> list[Arrays]:
        """What every worker gives, to every worker.

        Args:
            arrays: Dictionary of arrays by name.

        Returns:
            Each worker's dictionary, in the order of their ranks.

        Raises:
            LostWorkerError: If a worker is gone.
        """
        if self.size == 1:
            return [arrays]
        import tensorflow as tf

        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        try:
            sizes, payload = self._gather(buffer.getvalue())
        except tf.errors.OpError as error:
            raise LostWorkerError(
                f"another worker is gone: worker {self.rank} of {self.size} cannot "
                f"reach it ({type(error).__name__}). Start all workers again; with a "
                "checkpoint they go on from where it was last written."
            ) from error
        ends = np.cumsum(sizes)
        parts = (
            payload[end - size : end] for size, end in zip(sizes, ends, strict=True)
        )
        return [_unpacked(part.tobytes()) for part in parts]


def _unpacked(data: bytes) -> dict[str, NDArray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return dict(file)


def _gathering(
    strategy: Any,
) -> Callable[[bytes], tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """A function that hands bytes to all workers: lengths and contents of all.

    Both are in words of four bytes, the smallest integers that collectives take; the
    first replica of each worker gives its bytes, the others nothing.
    """
    import tensorflow as tf

    replicas = hooks.replica_count(strategy)

    def gathered(words: Any) -> tuple[Any, Any]:
        context = tf.distribute.get_replica_context()
        words = tf.identity(words)  # an argument has no device, which all_gather needs
        length = tf.shape(words)
        return context.all_gather(length, axis=0), context.all_gather(words, axis=0)

    @tf.function(autograph=False, reduce_retracing=True)
    def step(words: Any) -> Any:
        return strategy.run(gathered, args=(words,))

    def gather(data: bytes) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        words = np.frombuffer(data.ljust(-(-len(data) // 4) * 4, b"\0"), np.int32)
        given = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                words if context.replica_id_in_sync_group % replicas == 0 else words[:0]
            )
        )
        lengths, contents = step(given)
        local = strategy.experimental_local_results
        return local(lengths)[0].numpy(), local(contents)[0].numpy()

    return gather


def team(model: keras.Model) -> Team:
    """The workers of the `tf.distribute` strategy that is active, or a team of one.

    Args:
        model: Keras model; it may have been made under the strategy.

    Raises:
        ValueError: If the strategy is of another kind than those of `Team`.
    """
    if keras.backend.backend() != "tensorflow":
        return Team()
    import tensorflow as tf

    strategy = model.distribute_strategy
    if not tf.distribute.has_strategy() and strategy is tf.distribute.get_strategy():
        return Team()
    known = (
        tf.distribute.MirroredStrategy,
        tf.distribute.MultiWorkerMirroredStrategy,
        tf.distribute.OneDeviceStrategy,
    )
    if not isinstance(strategy, known):
        raise ValueError(
            "calibration runs under MirroredStrategy and MultiWorkerMirroredStrategy. "
            f"Received: {type(strategy).__name__}"
        )
    return Team(strategy)
