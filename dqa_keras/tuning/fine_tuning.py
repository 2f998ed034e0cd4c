r"""Fine-tunes a quantized model with `model.fit`.

The forward pass rounds to codes; the backward pass takes rounding as the identity
(straight-through). Weights learn by that alone. With the callback of this module the
scales learn too, as in LSQ: with $v = x / s$ and $\hat x = s \, \mathrm{clip}(
\mathrm{rint}(v))$,

$$\frac{\partial \hat x}{\partial s} = \mathrm{rint}(v) - v \text{ inside the range},
  \quad q_{min} \text{ or } q_{max} \text{ outside}$$

scaled by $1 / \sqrt{P q_{max}}$ for P positions of a channel. The recipe for 2 and 3
bits:

1. Calibrate.
2. Freeze batch normalization (`layer.trainable = False`): its averages are those of the
   whole training.
3. Train for one epoch with Adam at 5e-4, falling to 0 (cosine), on images augmented as
   in training. Labels are the float model's outputs (cross-entropy of both at
   temperature 4).

Example:
>>> import keras, numpy as np
>>> import dqa_keras as dqa
>>> model = keras.Sequential([
...     keras.Input((8, 8, 1)), keras.layers.Conv2D(8, 3),
...     keras.layers.BatchNormalization(name="norm"), keras.layers.ReLU(),
...     keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2),
... ])
>>> random = np.random.default_rng(0)
>>> x = random.random((64, 8, 8, 1))
>>> quantized = dqa.quantize_model(model, dqa.DQAConfig(budget_bits=2.5))
>>> dqa.calibrate(quantized, x, verbose=0)
>>> tuning = dqa.FineTuning(quantized, x)
>>> quantized.get_layer("norm").trainable = False
>>> def distillation(teacher, student):
...     labels = keras.ops.softmax(teacher / 4)
...     return 16 * keras.losses.categorical_crossentropy(
...         labels, student / 4, from_logits=True
...     )
>>> quantized.compile(keras.optimizers.Adam(5e-4), distillation)
>>> labels = model.predict(x, verbose=0)
>>> _ = quantized.fit(x, labels, epochs=1, callbacks=[tuning], verbose=0)

Reference:
    - [Learned Step Size Quantization](https://arxiv.org/abs/1902.08153)
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from dqa_keras.calibration.calibrate import calibrate
from dqa_keras.layers import Quantizer, quantizer_layers
from dqa_keras.tuning import model_pair


class FineTuning(keras.callbacks.Callback):
    """Lets the scales of a calibrated model learn under `fit`.

    From construction the scales are trainable weights, so construct it before
    `compile`. When training ends they are fixed again, and codes are counted anew, so
    that Huffman codes fit the trained model.

    Args:
        model: Keras model with calibrated quantizers.
        data: Inputs to count codes on (and to rank channels on), as for `calibrate`.
        rerank: Boolean. Whether the important channels are chosen anew after each
            epoch; channels that stay what they were keep their learned scales.
            Defaults to `False`.
        batch_size: Integer. Images a step when `data` is arrays. Defaults to `32`.

    Raises:
        ValueError: If the model has no quantizing layer or one is not calibrated.

    Reference:
        - [LSQ](https://arxiv.org/abs/1902.08153), section 2
    """

    def __init__(
        self,
        model: keras.Model,
        data: Any,
        *,
        rerank: bool = False,
        batch_size: int = 32,
    ) -> None:
        super().__init__()
        self._layers = quantizer_layers(model)
        if not self._layers:
            raise ValueError(
                f"model {model.name!r} has no quantizing layer. Use "
                "dqa_keras.quantize_model(model, config) first."
            )
        for layer in self._layers:
            layer.table()  # raises if the layer is not calibrated
        for layer in self._layers:
            layer.learn_scale(True)
        self._data = data
        self._rerank = rerank
        self._batch_size = batch_size

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Checks that the optimizer knows the scales."""
        trained = {id(weight) for weight in self.model.trainable_weights}
        if any(id(layer.scale) not in trained for layer in self._layers):
            raise ValueError(
                f"FineTuning was made for the layers of another model than "
                f"{self.model.name!r}, or has trained already: make a new one."
            )

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Makes validation use the scales learned so far."""
        self._settle()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Chooses the important channels anew if asked to."""
        self._settle()
        if self._rerank:
            self._rank()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Fixes the scales and counts the codes."""
        self._settle()
        for layer in self._layers:
            layer.learn_scale(False)
        model_pair.count_again(self.model, self._data, self._batch_size)

    def _settle(self) -> None:
        for layer in self._layers:
            layer.set_scale(ops.convert_to_numpy(layer.scale))

    def _rank(self) -> None:
        before = [_state(layer) for layer in self._layers]
        calibrate(self.model, self._data, batch_size=self._batch_size, verbose=0)
        for layer, (split, mask, scale) in zip(self._layers, before, strict=True):
            new_split, new_mask, new_scale = _state(layer)
            same = (mask == new_mask) & (split == new_split)
            layer.set_scale(np.where(same, scale, new_scale))


def _state(layer: Quantizer) -> tuple[tuple[int, int], Any, Any]:
    """Bits n and m, mask and scale of a layer."""
    table = layer.table()
    return (table.bits, table.extra_bits), table.mask, table.scale
