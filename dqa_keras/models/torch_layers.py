"""Layers that PyTorch trains faster than Keras' own, with the same weights.

Keras copies every image to channels first and back around a convolution, makes a batch
norm of many operations in float32, and leaves strided depthwise convolutions to a
gradient that PyTorch has no fast CPU kernel for. Only training uses these layers: the
weights go back to the model that was asked for.
"""

from typing import Any

import keras

# PyTorch keeps (N, H, W, C) memory under channels-first shapes: these are views.
_FIRST, _LAST = (0, 3, 1, 2), (0, 2, 3, 1)


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch norm in one kernel."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalises (N, H, W, C) by the batch, or as Keras does when not training."""
        if not training:
            return super().call(inputs, training=training, mask=mask)
        import torch

        # The kernel updates the moving ones in place, and takes float32 parameters
        # beside bfloat16 images: the values themselves, not what autocast makes.
        parameters = self.moving_mean, self.moving_variance, self.gamma, self.beta
        normal = torch.nn.functional.batch_norm(
            inputs.permute(_FIRST),
            *(parameter.value for parameter in parameters),
            training=True,
            momentum=1 - self.momentum,
            eps=self.epsilon,
        )
        return normal.permute(_LAST)


def _convolved(images: Any, kernel: Any, layer: Any, groups: int = 1) -> Any:
    import torch

    padding = layer.kernel_size[0] // 2 if layer.padding == "same" else 0
    outputs = torch.nn.functional.conv2d(
        images.permute(_FIRST), kernel, padding=padding, groups=groups
    ).permute(_LAST)
    if layer.strides == (1, 1):
        return outputs
    # Every second pixel of stride 1. "same" pads an even side on its far end alone:
    # its windows centre on odd pixels.
    return outputs[:, 1::2, 1::2]


class ViewConv2D(keras.layers.Conv2D):
    """A convolution without copies."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolves (N, H, W, C) with an HWIO kernel."""
        kernel = keras.ops.convert_to_tensor(kernel).permute(3, 2, 0, 1)
        return _convolved(inputs, kernel, self)


class ViewDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """A depthwise convolution without copies."""

    def call(self, inputs: Any) -> Any:
        """Convolves each channel of (N, H, W, C)."""
        kernel = keras.ops.convert_to_tensor(self.kernel).permute(2, 3, 0, 1)
        return _convolved(inputs, kernel, self, groups=inputs.shape[-1])


class ViewMaxPooling2D(keras.layers.MaxPooling2D):
    """Max pooling without copies."""

    def call(self, inputs: Any) -> Any:
        """Pools (N, H, W, C)."""
        import torch

        pooled = torch.nn.functional.max_pool2d(
            inputs.permute(_FIRST), self.pool_size, self.strides
        )
        return pooled.permute(_LAST)


def _replacement(layer: keras.layers.Layer) -> type[keras.layers.Layer]:
    kind = type(layer)
    if kind is keras.layers.BatchNormalization:
        return FusedBatchNormalization
    if kind is keras.layers.MaxPooling2D and layer.padding == "valid":
        return ViewMaxPooling2D
    if kind is keras.layers.Conv2D and (
        layer.strides == (1, 1) and layer.groups == 1 and not layer.use_bias
    ):
        return ViewConv2D
    if kind is keras.layers.DepthwiseConv2D and (
        layer.padding == "same" and not layer.use_bias and layer.depth_multiplier == 1
    ):
        even = all(side and side % 2 == 0 for side in layer.input.shape[1:3])
        if layer.strides == (1, 1) or (layer.strides == (2, 2) and even):
            return ViewDepthwiseConv2D
    return kind


def for_training(model: keras.Model) -> keras.Model:
    """The same model, of the layers above where they fit.

    Args:
        model: Functional Keras model on the PyTorch backend.

    Returns:
        A new Functional model with the same weights.
    """
    clone = keras.models.clone_model(
        model,
        clone_function=lambda layer: _replacement(layer).from_config(
            layer.get_config()
        ),
    )
    clone.set_weights(model.get_weights())
    return clone
