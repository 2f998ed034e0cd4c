"""Computes on the replicas of a `tf.distribute` strategy, and gathers bytes from all.

Without a strategy, or on another backend than TensorFlow, one device computes.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dqa_keras.backend.compile import compiled
from dqa_keras.backend.running import runs_on


class GatherError(RuntimeError):
    """A collective operation failed: another worker is gone."""


def strategy_of(model: keras.Model) -> Any:
    """The `tf.distribute` strategy that is active, or None where there is none.

    Args:
        model: Keras model; it may have been made under the strategy.

    Raises:
        ValueError: If the strategy is neither `MirroredStrategy`,
            `MultiWorkerMirroredStrategy` nor `OneDeviceStrategy`.
    """
    if not runs_on("tensorflow"):
        return None
    import tensorflow as tf

    strategy = model.distribute_strategy
    if not tf.distribute.has_strategy() and strategy is tf.distribute.get_strategy():
        return None
    supported = (
        tf.distribute.MirroredStrategy,
        tf.distribute.MultiWorkerMirroredStrategy,
        tf.distribute.OneDeviceStrategy,
    )
    if not isinstance(strategy, supported):
        raise ValueError(
            "calibration runs under MirroredStrategy and MultiWorkerMirroredStrategy. "
            f"Received: {type(strategy).__name__}"
        )
    return strategy


def is_distributed(data: Any) -> bool:
    """Whether data was made for the replicas of a strategy."""
    if not runs_on("tensorflow"):
        return False
    import tensorflow as tf

    kinds = (tf.distribute.DistributedDataset, tf.distribute.DistributedIterator)
    return isinstance(data, kinds)


def replica_count(strategy: Any) -> int:
    """How many replicas a `tf.distribute.Strategy`, or None, has on this machine."""
    return len(strategy.extended.worker_devices) if strategy is not None else 1


def worker_rank(strategy: Any) -> int:
    """Which of a strategy's workers this process is, from 0."""
    ids = strategy.experimental_distribute_values_from_function(
        lambda context: context.replica_id_in_sync_group
    )
    local = strategy.experimental_local_results(ids)
    return int(local[0]) // replica_count(strategy)


def replicated(
    function: Callable[[Any], Any], strategy: Any
) -> Callable[[list[Any]], list[Any]]:
    """A function of one batch per replica, all computed at once.

    Args:
        function: Function of one batch.
        strategy: `tf.distribute.Strategy` whose replicas on this machine compute, or
            None for one after another on one device.

    Returns:
        A function of a list of batches, at most one per replica, that gives a list of
        the results of `function`.
    """
    replicas = replica_count(strategy)
    if replicas == 1:
        run = compiled(function)
        return lambda batches: [run(x) for x in batches]
    import tensorflow as tf

    @tf.function(reduce_retracing=True, autograph=False)
    def step(x: Any) -> Any:
        return strategy.run(function, args=(x,))

    def on_each(batches: list[Any]) -> list[Any]:
        # Replicas without a batch of their own repeat the last one.
        padded = [batches[min(i, len(batches) - 1)] for i in range(replicas)]
        x = strategy.experimental_distribute_values_from_function(
            lambda context: keras.tree.map_structure(
                tf.convert_to_tensor,
                padded[context.replica_id_in_sync_group % replicas],
            )
        )
        outputs = step(x)
        return [
            keras.tree.map_structure(
                lambda value, i=i: strategy.experimental_local_results(value)[i],
                outputs,
            )
            for i in range(len(batches))
        ]

    return on_each


def all_gather(strategy: Any) -> Callable[[bytes], list[bytes]]:
    """A function that hands each worker's bytes to all workers, in order of rank.

    Bytes travel in words of four, the smallest integers that collectives take; the
    first replica of each worker sends them, the others send nothing.

    Raises:
        GatherError: When called, if a worker is gone.
    """
    import tensorflow as tf

    replicas = replica_count(strategy)

    def gather_words(words: Any) -> tuple[Any, Any]:
        context = tf.distribute.get_replica_context()
        words = tf.identity(words)  # an argument has no device, which all_gather needs
        length = tf.shape(words)
        return context.all_gather(length, axis=0), context.all_gather(words, axis=0)

    @tf.function(autograph=False, reduce_retracing=True)
    def step(words: Any) -> Any:
        return strategy.run(gather_words, args=(words,))

    def gather(data: bytes) -> list[bytes]:
        words = np.frombuffer(data.ljust(-(-len(data) // 4) * 4, b"\0"), np.int32)
        sent = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                words if context.replica_id_in_sync_group % replicas == 0 else words[:0]
            )
        )
        try:
            lengths, contents = map(first_local, step(sent))
        except tf.errors.OpError as error:
            raise GatherError(type(error).__name__) from error
        ends = np.cumsum(lengths)
        sent_by_workers = zip(ends[::replicas], lengths[::replicas], strict=True)
        return [contents[end - size : end].tobytes() for end, size in sent_by_workers]

    def first_local(value: Any) -> NDArray[np.int32]:
        return strategy.experimental_local_results(value)[0].numpy()

    return gather
