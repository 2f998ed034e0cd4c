r"""How much the model's output depends on each channel of each activation.

To second order an error $e$ of an activation raises a loss $L$, which is smallest where
nothing is rounded, by $\frac12 e^T H e$. With the diagonal of $H$ alone, and one value
of it a channel,

$$\Delta L \approx \tfrac12 \sum_c s_c \, \overline{e_c^2}, \qquad
  s_c = E \sum_p \left( \frac{\partial \ell}{\partial x_{pc}} \right)^2$$

with the sum over the positions p of one image. `s_c` takes one backward pass over data
without labels. Two losses:

- `"fisher"`: $\ell$ is the cross-entropy of a label drawn from the model's own
  prediction, so that $s$ is the diagonal of Fisher's information.
- `"output"`: $\ell = \sum_k r_k z_k$ with random signs $r_k$, so that $s$ belongs to
  the squared change of the outputs $z$ (logits, or the logarithm of probabilities).
  Fisher's information vanishes where the model is sure of itself; this does not.

The draws come from the digits of the outputs themselves: the same image draws the same,
whatever the order and the size of the batches.

Reference:
    - [Fisher information for pruning](https://arxiv.org/abs/1801.05787)
    - [Hutchinson's estimator](https://doi.org/10.1080/03610919008812866)
"""

from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from dqa_keras.backend.compile import compiled
from dqa_keras.backend.gradients import Mark, marked_gradients
from dqa_keras.graph.hooks import hooked
from dqa_keras.layers import Quantizer, quantizer_layers

Loss = Literal["fisher", "output"]

# Probabilities are taken to be at least this.
_SMALLEST = 1e-7

# Chosen on images held out of calibration: on half of 200 of ImageNet's and on training
# images of CIFAR-10.
_LEAST = 0.1
_POWER = 0.75


def _logits(y: Any) -> Any:
    """Outputs as logits: the logarithm where the last axis holds probabilities."""
    y = ops.cast(y, "float32")
    sums = ops.abs(ops.sum(y, -1) - 1.0)
    probabilities = ops.logical_and(ops.min(y) >= 0.0, ops.max(sums) < 1e-3)
    logarithm = ops.log(ops.maximum(y, _SMALLEST))
    return ops.where(probabilities, logarithm, y)


def _drawn(z: Any) -> Any:
    """Numbers in [0, 1), as good as random, from the digits of `z`."""
    digits = z * 1009.0
    return ops.stop_gradient(digits - ops.floor(digits))


def _output_loss(z: Any) -> Any:
    return ops.sum(ops.where(_drawn(z) < 0.5, z, -z))


def _fisher_loss(z: Any) -> Any:
    if z.shape[-1] == 1:  # not classes: a Gaussian around the prediction
        return _output_loss(z)
    # The largest of logits with Gumbel noise is a draw from their softmax.
    noise = -ops.log(-ops.log(ops.clip(_drawn(z), 1e-6, 1 - 1e-6)))
    label = ops.argmax(ops.stop_gradient(z) + noise, axis=-1)
    chosen = ops.one_hot(label, z.shape[-1])
    return -ops.sum(chosen * ops.log_softmax(z, axis=-1))


def dampened(sensitivity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Brings sensitivities closer together, for errors that are not small.

    A gradient describes small errors. Where a whole range is clipped the error is
    large: then even a channel without any gradient changes the output.

    Args:
        sensitivity: Float64 array (C,). Of all channels of one activation.

    Returns:
        Float64 array (C,): relative to their mean, at least a tenth, and to the power
        of three quarters.
    """
    mean = float(sensitivity.mean())
    if not mean:
        return sensitivity
    return mean * np.maximum(sensitivity / mean, _LEAST) ** _POWER


_LOSSES: dict[Loss, Callable[[Any], Any]] = {
    "fisher": _fisher_loss,
    "output": _output_loss,
}


def observing(
    model: keras.Model, loss: Loss
) -> Callable[[Any], list[tuple[Quantizer, NDArray[np.float64]]]]:
    """A function that runs the model forwards and backwards on a batch.

    Args:
        model: Keras model with quantizing layers, which let everything pass.
        loss: `"fisher"` or `"output"`.

    Returns:
        A function of one batch that gives, for each call of a quantizer, the layer and
        its squared gradients (C,), summed over images and positions.
    """
    layers = quantizer_layers(model)
    order: list[Quantizer] = []

    def backward(x: Any) -> list[Any]:
        def run(mark: Mark) -> Any:
            seen: list[Quantizer] = []

            def hook(layer: Quantizer, inputs: Any) -> Any:
                seen.append(layer)
                return mark(inputs)

            with hooked(layers, hook):
                outputs = keras.tree.flatten(model(x, training=False))
            order[:] = seen
            losses = [_LOSSES[loss](_logits(y)) for y in outputs]
            return ops.sum(ops.stack(losses))

        return [
            ops.sum(ops.square(ops.cast(g, "float32")), list(range(g.ndim - 1)))
            for g in marked_gradients(run)
        ]

    run = compiled(backward)

    def observe(x: Any) -> list[tuple[Quantizer, NDArray[np.float64]]]:
        sums = [ops.convert_to_numpy(s).astype(np.float64) for s in run(x)]
        return list(zip(order, sums, strict=True))

    return observe
