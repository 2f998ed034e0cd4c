"""Where the error enters: what each quantizer alone does to the model's output."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dqa_keras.backend import data_adapter
from dqa_keras.backend.compile import compiled
from dqa_keras.calibration.observers import decibels
from dqa_keras.layers import Quantizer, quantizer_layers


@dataclasses.dataclass(frozen=True)
class OutputNoise:
    """SQNR at the model's output, in dB; higher is closer to the unquantized model.

    Args:
        layers: Dictionary from quantizer name to the SQNR when it alone quantizes.
        total: Float. The SQNR when all of them do.
    """

    layers: dict[str, float]
    total: float


@contextmanager
def only(layers: list[Quantizer], chosen: list[Quantizer]) -> Iterator[None]:
    """Within the context only the `chosen` ones of `layers` quantize."""
    saved = [layer.is_calibrated for layer in layers]
    for layer in layers:
        layer.calibrated.assign(layer in chosen)
    try:
        yield
    finally:
        for layer, calibrated in zip(layers, saved, strict=True):
            layer.calibrated.assign(calibrated)


def output_sqnr(
    model: keras.Model, data: Any, *, batch_size: int = 32, verbose: int = 0
) -> OutputNoise:
    """Measures the SQNR at the output when one quantizer at a time is at work.

    The cost is one run of the model over the data for each quantizer, and two more.

    Args:
        model: Keras model with calibrated quantizers; it is left as it was.
        data: Inputs, as for `calibrate`; labels are not used. A few dozen images
            are enough.
        batch_size: Integer. Images a step when `data` is arrays. Defaults to `32`.
        verbose: Integer. `0` hides the progress bar. Defaults to `0`.

    Returns:
        A `OutputNoise`.

    Raises:
        ValueError: If a layer is not calibrated, or the data does not fit the model.

    Example:
    >>> import keras, numpy as np
    >>> import dqa_keras as dqa
    >>> from dqa_keras.calibration import output_noise
    >>> model = keras.Sequential([
    ...     keras.Input((4,)), keras.layers.Dense(8, activation="relu", name="hidden"),
    ...     keras.layers.Dense(2),
    ... ])
    >>> x = np.random.default_rng(0).random((64, 4))
    >>> quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=4))
    >>> dqa.calibrate(quantized, x, verbose=0)
    >>> sqnr = output_noise.output_sqnr(quantized, x)
    >>> sqnr.layers["hidden_dqa"] == sqnr.total
    True
    """
    layers = quantizer_layers(model)
    for layer in layers:
        layer.table()  # raises where there is no calibration
    run = compiled(lambda x: model(x, training=False))

    def outputs(x: Any) -> list[NDArray[np.float64]]:
        return [
            keras.ops.convert_to_numpy(y).astype(np.float64)
            for y in keras.tree.flatten(run(x))
        ]

    tries = {layer.name: [layer] for layer in layers}
    signal = 0.0
    noise = dict.fromkeys([*tries, ""], 0.0)
    batches = list(data_adapter.fitting(model, data, batch_size))
    steps = tqdm(
        total=len(batches) * len(noise),
        desc="find errors",
        unit="run",
        disable=None if verbose else True,
    )
    for x in batches:
        with only(layers, []):
            reference = outputs(x)
        signal += sum(float(np.sum(y**2)) for y in reference)
        for name in noise:
            with only(layers, tries.get(name, layers)):
                noisy = outputs(x)
            noise[name] += sum(
                float(np.sum((y - r) ** 2))
                for y, r in zip(noisy, reference, strict=True)
            )
            steps.update()
    steps.close()
    total = decibels(signal, noise.pop(""))
    return OutputNoise({n: decibels(signal, e) for n, e in noise.items()}, total)
