"""Accuracy of a Keras model and of a `.tflite`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from dqa_keras.analysis.accuracy import Tally
from dqa_keras.analysis.comparison import Comparison
from dqa_keras.cli.inputs import BATCH
from dqa_keras.export.litert.interpreter import Runner


class ShortfallError(Exception):
    """A figure or check fell short: exit code 1."""


def _progress(data: Any, title: str, unit: str) -> Any:
    return tqdm(data, desc=title, unit=unit, leave=False, disable=None)


def accuracy(model: keras.Model, data: Any, batch: int = BATCH) -> float:
    """Accuracy of a Keras model on unbatched (image, label) data, in percent.

    Top-1, or mean IoU where labels are masks.
    """
    tally = Tally(model.output_shape[-1])
    for x, y in _progress(data.batch(batch), "accuracy", "batch"):
        tally.add(np.asarray(model.predict_on_batch(x)), y.numpy())
    return tally.percent()


def compared(
    model: keras.Model, exact: keras.Model, data: Any, batch: int = BATCH
) -> dict[str, float]:
    """What `Comparison.result` says of a model and the float one, on the same data."""
    comparison = Comparison(model.output_shape[-1])
    for x, y in _progress(data.batch(batch), "compare", "batch"):
        scores, expected = (np.asarray(m.predict_on_batch(x)) for m in (model, exact))
        comparison.add(scores, expected, y.numpy())
    return comparison.result()


def tflite_compared(
    content: bytes, exact: keras.Model, data: Any, batch: int = BATCH
) -> dict[str, float]:
    """The same of a `.tflite` in LiteRT."""
    run = Runner(content)
    comparison = Comparison(exact.output_shape[-1])
    for x, y in _progress(data.batch(batch), "LiteRT", "batch"):
        scores = [run(image[None])[0] for image in x.numpy()]
        expected = np.asarray(exact.predict_on_batch(x))
        comparison.add(np.concatenate(scores), expected, y.numpy())
    return comparison.result()


def tflite_accuracy(
    path: str | Path, data: Any, delegates: Sequence[Any] = ()
) -> float:
    """The same of a `.tflite` in LiteRT, with the delegates that it needs."""
    run = Runner(Path(path).read_bytes(), delegates=delegates)
    tally: Tally | None = None
    for x, y in _progress(data.batch(1), "LiteRT", "image"):
        (scores,) = run(x)
        tally = tally or Tally(scores.shape[-1])
        tally.add(scores, y.numpy())
    return tally.percent() if tally else 0.0
