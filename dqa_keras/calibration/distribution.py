"""Several workers that calibrate one model together, by `tf.distribute`.

Every worker reads all the data and computes its share of it. Their statistics are added
with arithmetic that is exact under regrouping, so the result is the same, bit for bit,
whatever the number of workers.

>>> import keras
>>> from dqa_keras.calibration import distribution
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
>>> workers = distribution.worker_group(model)
>>> workers.size, workers.rank, workers.replicas
(1, 0, 1)
"""

import io
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dqa_keras.backend import replicas

Arrays = Mapping[str, Any]  # of NumPy arrays


class LostWorkerError(RuntimeError):
    """Another worker is gone, so the work cannot be finished together."""


class WorkerGroup:
    """The workers that share the work; by default one alone.

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
        self.replicas = replicas.replica_count(strategy)
        self.size = 1
        self.rank = 0
        if strategy is not None:
            self.size = strategy.num_replicas_in_sync // self.replicas
        if self.size > 1:
            self._all_gather = replicas.all_gather(strategy)
            self.rank = replicas.worker_rank(strategy)

    def all_gather(self, arrays: Arrays) -> list[Arrays]:
        """Hands each worker's arrays to all workers.

        Args:
            arrays: Dictionary of arrays by name.

        Returns:
            Each worker's dictionary, in the order of their ranks.

        Raises:
            LostWorkerError: If a worker is gone.
        """
        if self.size == 1:
            return [arrays]
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        try:
            parts = self._all_gather(buffer.getvalue())
        except replicas.GatherError as error:
            raise LostWorkerError(
                f"another worker is gone: worker {self.rank} of {self.size} cannot "
                f"reach it ({error}). Start all workers again; with a "
                "checkpoint they go on from where it was last written."
            ) from error
        return [_unpacked(part) for part in parts]


def _unpacked(data: bytes) -> dict[str, NDArray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return dict(file)


def worker_group(model: keras.Model) -> WorkerGroup:
    """The workers of the `tf.distribute` strategy that is active, or a single one.

    Args:
        model: Keras model; it may have been made under the strategy.

    Raises:
        ValueError: If the strategy is neither `MirroredStrategy`,
            `MultiWorkerMirroredStrategy` nor `OneDeviceStrategy`.
    """
    return WorkerGroup(replicas.strategy_of(model))
