"""Files whose inputs have sizes that are known only when they run."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import dqa_keras as dqa
from dqa_keras.export import export_tflite
from dqa_keras.export.litert import verification

layers = keras.layers


class _Halves(layers.Layer):
    """Branches on a size, which a graph of an open size cannot."""

    def call(self, x):
        return x[:, : x.shape[1] // 2]

    def compute_output_shape(self, shape):
        return (shape[0], None, *shape[2:])


class _Repeats(layers.Layer):
    """Repeats rows out of the exporter's sight: its weight keeps the layer whole."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return keras.ops.repeat(x * self.scale, 2, axis=1)


class _Enlarges(layers.Layer):
    """Holds a Keras layer that must be replaced; its weight keeps it whole."""

    def __init__(self, **options):
        super().__init__(**options)
        self.enlarge = layers.UpSampling2D(2, interpolation="bilinear")

    build = _Repeats.build

    def call(self, x):
        return self.enlarge(x * self.scale)

    def compute_output_shape(self, shape):
        return self.enlarge.compute_output_shape(shape)


def _of_any_size(middle):
    """A quantized model with `middle` between two convolutions, and its images."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3), name="image")
    x = keras.layers.Conv2D(4, 3, 2, padding="same", activation="relu")(inputs)
    x = middle(x)
    rank = len(x.shape) - 2
    head = keras.layers.Conv2D(1, 1) if rank == 2 else keras.layers.Conv1D(1, 1)
    model = keras.Model(inputs, head(x))
    model = dqa.quantize_model(model, dqa.DQAConfig(bits=4))
    images = np.random.default_rng(0).random((4, 12, 16, 3), np.float32)
    dqa.calibrate(model, images, verbose=0)
    return model, images


@pytest.mark.parametrize(
    ("layer", "culprit"),
    [
        (_Repeats(), "Conv2D of layer"),
        (_Halves(name="halves"), r"layer 'halves' \(_Halves\)"),
    ],
)
def test_a_layer_that_must_know_the_size_says_so(layer, culprit, tmp_path):
    model, images = _of_any_size(layer)
    with pytest.raises(
        ValueError,
        match=rf"^{culprit}.*fixed size only.*'image' of shape \(None, None, 3\)"
        ".*input_shape=",
    ):
        export_tflite(model, tmp_path / "m", samples=images)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "layer",
    [
        layers.UpSampling2D(2, interpolation="bicubic"),
        layers.Resizing(8, 8, interpolation="bicubic"),
    ],
)
def test_what_no_size_helps_is_not_asked_for_one(layer, tmp_path):
    model, images = _of_any_size(layer)
    with pytest.raises(ValueError, match="no built-in op for ResizeBicubic of layer"):
        export_tflite(model, tmp_path / "m", samples=images)


_OPEN = {
    "nearest": layers.UpSampling2D((3, 2)),
    "bilinear": layers.UpSampling2D((2, 3), interpolation="bilinear"),
    "rows": lambda x: layers.UpSampling1D(3)(layers.Reshape((-1, 4))(x)),
    "repeat": lambda x: keras.ops.repeat(x, 2, axis=1),
    "repeat_channels": lambda x: keras.ops.repeat(x, [2, 1, 1, 2], axis=-1),
    "resizing": layers.Resizing(5, 7),
    "transposed": layers.Conv2DTranspose(4, 3, 2, activation="relu"),
    "skip": lambda x: layers.Concatenate()(
        [x, layers.UpSampling2D(2)(layers.MaxPooling2D()(x))]
    ),
    "nested": keras.Sequential(
        [layers.UpSampling2D(2, interpolation="bilinear"), layers.Conv2D(4, 3)]
    ),
    "out_of_sight": _Enlarges(),
    "attention": lambda x: layers.MultiHeadAttention(1, 4)(
        *2 * [layers.Reshape((-1, 4))(x)]
    ),
}


@pytest.mark.parametrize(
    ("name", "weights"),
    [*((name, "float32") for name in _OPEN), ("skip", "float16"), ("skip", "int8")],
)
def test_an_open_size_stays_open(name, weights, tmp_path):
    model, images = _of_any_size(_OPEN[name])
    path = str(tmp_path / "m")
    report = export_tflite(model, path, weights=weights, samples=images[:2])
    limit = (0.1 if weights == "int8" else 1e-3) * report.output_range
    assert report.max_difference <= limit
    interpreter = Interpreter(model_path=path)
    (source,), (target,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    assert list(source["shape_signature"]) == [1, -1, -1, 3]
    for shape in [(1, 12, 16, 3), (1, 20, 8, 3), (1, 36, 40, 3)]:
        x = np.random.default_rng(1).random(shape, np.float32)
        interpreter.resize_tensor_input(source["index"], shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], x)
        interpreter.invoke()
        values, expected = interpreter.get_tensor(target["index"]), np.asarray(model(x))
        assert values.shape == expected.shape
        # A last bit of a sum can flip a code.
        off = np.abs(values - expected)
        assert np.mean(off > limit) < 0.02 or off.mean() < 0.03 * report.output_range


def test_a_file_of_open_sizes_is_checked_on_another(monkeypatch, tmp_path):
    model, images = _of_any_size(layers.UpSampling2D(2))
    widths = []
    check = verification.check_codes
    monkeypatch.setattr(
        verification,
        "check_codes",
        lambda data, model, x: [widths.append(x.shape[2]), check(data, model, x)][1],
    )
    export_tflite(model, tmp_path / "m", samples=images)
    assert widths == [16, 32, 16, 32]


def test_a_size_that_the_model_does_not_take_is_not_tried(tmp_path):
    model, images = _of_any_size(
        lambda x: layers.Reshape((6, 8, 4))(layers.Reshape((-1, 4))(x))
    )
    assert export_tflite(model, tmp_path / "m", samples=images).quantizers == 1
