"""What quantizers do while a model trains, for TensorBoard.

    model.fit(x, y, callbacks=[
        dqa.CalibrationCallback(x),
        dqa.TensorBoardCallback("logs", x[:64]),
    ])

Then run `tensorboard --logdir logs`. The callback's figures are in the run `dqa`,
beside those of `keras.callbacks.TensorBoard`:

    stored_bits/total, stored_bits/LAYER    measured stored bits a value
    sqnr/LAYER                              signal to quantization noise, dB
    activations/LAYER, codes/LAYER          histograms: before and after rounding
"""

import importlib.util
import os
from typing import Any

import keras
from keras import ops

from dqa_keras.analysis.storage import storage_bits
from dqa_keras.backend import data_adapter
from dqa_keras.graph import hooks
from dqa_keras.layers import Quantizer


def _tap(layer: Quantizer, inputs: Any) -> tuple[Any, Any]:
    x = ops.cast(inputs, "float32")
    outputs = ops.cast(layer.quantized(x), layer.compute_dtype)
    return (x, layer.codes(x)), outputs


class TensorBoardCallback(keras.callbacks.Callback):
    """Writes stored bits, SQNR and histograms of every quantizer after each epoch.

    Step 0 is the model before training. Measuring costs two passes over `data` an
    epoch, so a few dozen images are enough.

    Args:
        log_dir: Folder for the event files, as for `keras.callbacks.TensorBoard`.
        data: Inputs to measure on, as for `calibrate`; not an iterator that ends.
            Histograms are those of its first batch.
        batch_size: Integer. Images a step when `data` is arrays. Defaults to `32`.

    Raises:
        ImportError: If TensorFlow or TensorBoard is not installed.
        ValueError: When training begins, if a quantizer is not calibrated.

    Example:
    >>> import keras, numpy as np, tempfile
    >>> import dqa_keras as dqa
    >>> model = keras.Sequential([
    ...     keras.Input((4,)), keras.layers.Dense(8, activation="relu"),
    ...     keras.layers.Dense(1),
    ... ])
    >>> quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=4))
    >>> quantized.compile("adam", "mse")
    >>> x = np.random.default_rng(0).random((64, 4))
    >>> callbacks = [
    ...     dqa.CalibrationCallback(x, verbose=0),
    ...     dqa.TensorBoardCallback(tempfile.mkdtemp(), x),
    ... ]
    >>> _ = quantized.fit(x, x[:, :1], verbose=0, callbacks=callbacks)
    """

    def __init__(
        self, log_dir: str | os.PathLike, data: Any, *, batch_size: int = 32
    ) -> None:
        super().__init__()
        for package in ("tensorflow", "tensorboard"):
            if importlib.util.find_spec(package) is None:
                raise ImportError(
                    f"TensorBoardCallback needs {package}: pip install {package}"
                )
        import tensorflow as tf

        self._summary = tf.summary
        self._folder = os.path.join(log_dir, "dqa")
        self._data = data
        self._batch_size = batch_size
        self._writer: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens the event file and writes step 0."""
        self._writer = self._summary.create_file_writer(self._folder)
        self._write(0)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the figures of the model as it is now."""
        self._write(epoch + 1)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the event file."""
        self._writer.close()

    def _write(self, step: int) -> None:
        storage = storage_bits(self.model, self._data, batch_size=self._batch_size)
        x = next(data_adapter.fitting(self.model, self._data, self._batch_size))
        seen = hooks.observing(self.model, _tap)(x)
        summary = self._summary
        with self._writer.as_default(step=step):
            summary.scalar("stored_bits/total", storage.total)
            for name, layer in storage.layers.items():
                summary.scalar(f"stored_bits/{name}", layer.bits)
                summary.scalar(f"sqnr/{name}", layer.sqnr)
            for quantizer, (values, codes) in seen:
                summary.histogram(f"activations/{quantizer.name}", values)
                summary.histogram(f"codes/{quantizer.name}", codes)
        self._writer.flush()
