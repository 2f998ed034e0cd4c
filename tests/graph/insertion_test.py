import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

import dqa_keras as dqa
from dqa_keras.layers import Quantizer, quantizer_layers

CONFIG = dqa.DQAConfig(bits=4, extra_bits=2)


def convert(model, config=CONFIG, **options):
    return dqa.quantize_model(model, config, **options)


def names(model):
    return [layer.name for layer in quantizer_layers(model)]


def reasons(model):
    return {skip.name: skip.reason for skip in dqa.skipped(model)}


def random_inputs(model, batch=3):
    random = np.random.default_rng(1)
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.input
    return keras.tree.map_structure(
        lambda t: random.normal(
            size=(batch, *(4 if size is None else size for size in t.shape[1:]))
        ).astype(np.float32),
        inputs,
    )


def outputs(model, x):
    return [np.asarray(y).tobytes() for y in keras.tree.flatten(model(x))]


def assert_same_outputs(model, quantized):
    """Uncalibrated, the quantized model computes what the original does, to the bit."""
    x = random_inputs(model)
    assert outputs(quantized, x) == outputs(model, x)


def behind(model, name):
    """The name of the operation in front of a quantizer."""
    return model.get_layer(name).input._keras_history.operation.name


def dense(name, activation=None, units=4):
    return kl.Dense(units, activation=activation, name=name)


def _doubled(x):
    """An activation that Keras does not know."""
    return 2 * x


# ---- where quantizers go


def test_sequential_model(small_cnn):
    quantized = convert(small_cnn)
    assert names(quantized) == ["first_dqa", "second_dqa"]
    assert behind(quantized, "first_dqa") == "first"
    assert behind(quantized, "second_dqa") == "second"
    assert reasons(quantized) == {"head": "an output of the model"}
    assert_same_outputs(small_cnn, quantized)


def test_quantizers_carry_the_config(small_cnn):
    config = dqa.DQAConfig(bits=3, method="direct", clipping="max", signed=True, seed=5)
    for layer in quantizer_layers(convert(small_cnn, config)):
        assert isinstance(layer, dqa.layers.Direct)
        assert layer.config == config
        assert layer.name.endswith("_direct")


@pytest.mark.parametrize(
    "layer",
    [
        kl.Activation("relu", name="a"),
        kl.ReLU(name="a"),
        kl.LeakyReLU(name="a"),
        kl.PReLU(name="a"),
        kl.ELU(name="a"),
        kl.Softmax(name="a"),
        kl.Dense(4, activation="gelu", name="a"),
        kl.EinsumDense("ab,bc->ac", 4, activation="silu", name="a"),
        kl.Dense(4, activation=_doubled, name="a"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_every_nonlinear_activation_layer_gets_a_quantizer(layer):
    model = keras.Sequential([keras.Input((4,)), layer, dense("head")])
    quantized = convert(model)
    assert names(quantized) == ["a_dqa"]
    assert_same_outputs(model, quantized)


@pytest.mark.parametrize(
    "layer",
    [
        kl.Dense(4, name="a"),
        kl.Dense(4, activation="linear", name="a"),
        kl.Activation("linear", name="a"),
        kl.BatchNormalization(name="a"),
        kl.Dropout(0.5, name="a"),
    ],
    ids=["no activation", "linear", "Activation linear", "norm", "dropout"],
)
def test_a_linear_layer_gets_none_and_is_not_reported(layer):
    model = keras.Sequential([keras.Input((4,)), layer, dense("head")])
    quantized = convert(model)
    assert names(quantized) == []
    assert dqa.skipped(quantized) == ()


class _Scaled(kl.Layer):
    """A user's layer with Keras' customary `activation` argument."""

    def __init__(self, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.activation = activation

    def call(self, x):
        x = 2.0 * x
        return x if self.activation is None else self.activation(x)

    def get_config(self):
        return {**super().get_config(), "activation": self.activation}


@pytest.mark.parametrize(
    ("activation", "quantizers"), [(None, []), (keras.activations.relu, ["a_dqa"])]
)
def test_a_users_layer_with_an_activation(activation, quantizers):
    layer = _Scaled(activation, name="a")
    quantized = convert(keras.Sequential([keras.Input((4,)), layer, dense("head")]))
    assert names(quantized) == quantizers


_FUNCTIONS = [
    keras.ops.relu,
    keras.ops.relu6,
    keras.ops.silu,
    keras.ops.sigmoid,
    keras.ops.hard_sigmoid,
    keras.ops.hard_silu,
    keras.ops.tanh,
    keras.ops.gelu,
    keras.ops.elu,
    keras.ops.celu,
    keras.ops.selu,
    keras.ops.leaky_relu,
    keras.ops.softmax,
    keras.ops.log_softmax,
    keras.ops.softplus,
    keras.ops.softsign,
    keras.ops.log_sigmoid,
    keras.ops.hard_tanh,
    keras.ops.hard_shrink,
    keras.ops.soft_shrink,
    keras.ops.tanh_shrink,
    keras.ops.squareplus,
    keras.activations.relu,
    keras.activations.softmax,
]


@pytest.mark.parametrize(
    "function", _FUNCTIONS, ids=lambda f: f"{f.__module__.split('.')[-1]}.{f.__name__}"
)
def test_an_activation_called_as_a_function_gets_a_quantizer(function):
    inputs = keras.Input((4,))
    activated = function(inputs)
    model = keras.Model(inputs, dense("head")(activated))
    quantized = convert(model)
    assert names(quantized) == [activated._keras_history.operation.name + "_dqa"]
    assert_same_outputs(model, quantized)


def test_arithmetic_is_no_activation():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, dense("head")(keras.ops.exp(inputs) + 1))
    assert names(convert(model)) == []


def test_softmax_inside_the_model_is_quantized_and_at_its_end_is_not():
    inputs = keras.Input((4,))
    attention = kl.Softmax(name="attention")(inputs)
    model = keras.Model(inputs, kl.Softmax(name="end")(dense("d")(attention)))
    quantized = convert(model)
    assert names(quantized) == ["attention_dqa"]
    assert reasons(quantized) == {"end": "an output of the model"}


# ---- graphs


@pytest.fixture(scope="module")
def merged():
    """Two inputs, merges of both kinds, two outputs."""
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    left, right = dense("left", "relu")(a), dense("right", "tanh")(b)
    total = kl.Add(name="sum")([left, right])
    wide = kl.Concatenate(name="cat")([total, a])
    return keras.Model(
        {"a": a, "b": b},
        {"main": dense("main", "softmax")(wide), "aux": dense("aux")(total)},
        name="merged",
    )


def test_multi_input_multi_output_model(merged):
    quantized = convert(merged)
    assert names(quantized) == ["left_dqa", "right_dqa"]
    assert reasons(quantized) == {
        "sum": "a merge, and quantize_merges is off",
        "cat": "a merge, and quantize_merges is off",
        "main": "an output of the model",
    }
    x = random_inputs(merged)
    assert set(quantized(x)) == {"main", "aux"}
    assert_same_outputs(merged, quantized)


def test_quantize_merges_puts_quantizers_behind_add_and_concatenate(merged):
    quantized = convert(merged, CONFIG.replace(quantize_merges=True))
    assert set(names(quantized)) == {"left_dqa", "right_dqa", "sum_dqa", "cat_dqa"}
    assert behind(quantized, "sum_dqa") == "sum"
    assert_same_outputs(merged, quantized)


@pytest.fixture(scope="module")
def bottleneck():
    """An inverted residual with linear bottlenecks."""
    inputs = x = keras.Input((6, 6, 4))
    x = shortcut = kl.BatchNormalization(name="norm")(kl.Conv2D(4, 1, name="in")(x))
    x = kl.Conv2D(8, 1, activation="relu6", name="expand")(x)
    x = kl.DepthwiseConv2D(3, padding="same", activation="relu6", name="depth")(x)
    x = kl.Add(name="sum")([shortcut, kl.Conv2D(4, 1, name="project")(x)])
    x = kl.GlobalAveragePooling2D()(kl.Conv2D(8, 1, activation="relu", name="out")(x))
    return keras.Model(inputs, kl.Dense(2, name="head")(x), name="bottleneck")


def test_quantize_linear_puts_quantizers_behind_linear_bottlenecks(bottleneck):
    activations = ["expand_dqa", "depth_dqa", "out_dqa"]
    assert names(convert(bottleneck)) == activations
    quantized = convert(bottleneck, CONFIG.replace(quantize_linear=True))
    assert set(names(quantized)) == {*activations, "norm_dqa", "sum_dqa"}
    assert behind(quantized, "norm_dqa") == "norm"
    assert behind(quantized, "sum_dqa") == "sum"
    assert dqa.skipped(quantized) == ()
    assert_same_outputs(bottleneck, quantized)
    dqa.calibrate(quantized, random_inputs(bottleneck, 16), verbose=0)
    signed = {q.name for q in quantizer_layers(quantized) if q.table().signed}
    assert signed == {"norm_dqa", "sum_dqa"}


def test_quantize_linear_inside_a_nested_model(bottleneck):
    inputs = keras.Input((6, 6, 4))
    model = keras.Model(inputs, bottleneck(kl.Conv2D(4, 1, name="stem")(inputs)))
    quantized = convert(model, CONFIG.replace(quantize_linear=True))
    quantized_names = names(quantized)
    assert {"stem_dqa", "bottleneck_norm_dqa", "bottleneck_sum_dqa"} <= set(
        quantized_names
    )
    assert_same_outputs(model, quantized)


def test_a_linear_bottleneck_has_a_name_for_filters_and_overrides(bottleneck):
    config = CONFIG.replace(quantize_linear=True)
    assert names(convert(bottleneck, config, filters="norm")) == ["norm_dqa"]
    overrides = {"sum": CONFIG.replace(bits=6), "norm": None}
    quantized = convert(bottleneck, config, overrides=overrides)
    assert quantized.get_layer("sum_dqa").bits == 6
    assert reasons(quantized) == {"norm": "override 'norm' is None"}
    with pytest.raises(ValueError, match=r"with quantize_linear .*'norm', which"):
        convert(bottleneck, filters="norm")


def test_an_activation_that_is_also_an_output_is_quantized_on_its_other_way():
    inputs = keras.Input((4,))
    features = dense("features", "relu")(inputs)
    model = keras.Model(inputs, [features, dense("head")(features)])
    quantized = convert(model)
    assert names(quantized) == ["features_dqa"]
    dqa.calibrate(quantized, np.random.default_rng(0).random((16, 4)), verbose=0)
    x = random_inputs(model)
    assert outputs(quantized, x)[0] == outputs(model, x)[0]
    assert outputs(quantized, x)[1] != outputs(model, x)[1]


def test_a_layer_called_twice_gets_a_quantizer_for_each_call():
    a, b = keras.Input((4,)), keras.Input((4,))
    shared = dense("shared", "relu")
    model = keras.Model([a, b], dense("head")(kl.Add()([shared(a), shared(b)])))
    quantized = convert(model)
    assert names(quantized) == ["shared_dqa", "shared_dqa_1"]
    assert len(quantized.weights) - len(model.weights) == sum(
        len(layer.weights) for layer in quantizer_layers(quantized)
    )
    assert_same_outputs(model, quantized)


def test_nested_functional_and_sequential_models():
    inner_in = keras.Input((4,))
    inner = keras.Model(inner_in, dense("out")(dense("mid", "relu")(inner_in)))
    inner.name = "inner"
    block = keras.Sequential([dense("one", "relu"), dense("two")], name="block")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, dense("head")(block(inner(inputs))))
    quantized = convert(model)
    assert names(quantized) == ["inner_mid_dqa", "block_one_dqa"]
    assert isinstance(quantized.get_layer("inner"), keras.Model)
    assert_same_outputs(model, quantized)


def nested_ending_in_an_activation():
    inner_in = keras.Input((4,))
    middle = dense("mid", "relu")(inner_in)
    return keras.Model(inner_in, dense("end", "relu")(middle), name="inner")


def test_an_activation_at_the_end_of_a_nested_model_is_quantized_outside_it():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, dense("head")(nested_ending_in_an_activation()(inputs)))
    quantized = convert(model)
    assert set(names(quantized)) == {"inner_mid_dqa", "inner_dqa"}
    assert behind(quantized, "inner_dqa") == "inner"
    assert dqa.skipped(quantized) == ()
    assert_same_outputs(model, quantized)


def test_a_nested_model_at_the_output_has_nothing_behind_its_end():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, nested_ending_in_an_activation()(inputs))
    quantized = convert(model)
    assert names(quantized) == ["inner_mid_dqa"]
    assert reasons(quantized) == {"inner": "an output of the model"}
    assert_same_outputs(model, quantized)


def test_a_nested_model_called_twice_is_converted_once():
    inner = nested_ending_in_an_activation()
    a, b = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([a, b], dense("head")(kl.Add()([inner(a), inner(b)])))
    quantized = convert(model)
    assert sorted(names(quantized)) == ["inner_dqa", "inner_dqa_1", "inner_mid_dqa"]
    assert_same_outputs(model, quantized)


def test_models_nested_two_deep():
    inner = nested_ending_in_an_activation()
    outer = keras.Sequential([keras.Input((4,)), inner], name="outer")
    model = keras.Sequential([keras.Input((4,)), outer, dense("head")])
    quantized = convert(model)
    assert set(names(quantized)) == {"outer_inner_mid_dqa", "outer_dqa"}
    assert_same_outputs(model, quantized)


def test_a_nested_model_with_two_outputs_gets_a_quantizer_where_due():
    inner_in = keras.Input((4,))
    outs = [dense("act", "relu")(inner_in), dense("lin")(inner_in)]
    inner = keras.Model(inner_in, outs, name="inner")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, dense("head")(kl.Add(name="sum")(inner(inputs))))
    quantized = convert(model)
    assert names(quantized) == ["inner_dqa"]
    assert_same_outputs(model, quantized)


def test_two_nested_models_may_use_the_same_layer_names():
    blocks = [
        keras.Sequential([keras.Input((4,)), dense("d", "relu"), dense("e")], name=name)
        for name in ("a", "b")
    ]
    model = keras.Sequential([keras.Input((4,)), *blocks, dense("head")])
    assert names(convert(model)) == ["a_d_dqa", "b_d_dqa"]


def test_a_layer_that_already_has_the_quantizers_name_is_avoided():
    model = keras.Sequential(
        [keras.Input((4,)), dense("d", "relu"), dense("d_dqa"), dense("head")]
    )
    assert names(convert(model)) == ["d_dqa_1"]


def test_unknown_spatial_sizes():
    model = keras.Sequential(
        [
            keras.Input((None, None, 2)),
            kl.Conv2D(3, 2, activation="relu", name="conv"),
            kl.GlobalAveragePooling2D(),
        ]
    )
    quantized = convert(model)
    assert names(quantized) == ["conv_dqa"]
    assert_same_outputs(model, quantized)


# ---- filters and overrides


def test_filters_by_name_and_by_regular_expression(small_cnn):
    assert names(convert(small_cnn, filters=["first"])) == ["first_dqa"]
    assert names(convert(small_cnn, filters=["sec.*"])) == ["second_dqa"]
    assert names(convert(small_cnn, filters="sec.*")) == ["second_dqa"]
    quantized = convert(small_cnn, filters=["first"])
    assert reasons(quantized)["second"] == "no filter matches it"


def test_a_regular_expression_must_match_the_whole_name(small_cnn):
    with pytest.raises(ValueError, match="'fir', which matches none"):
        convert(small_cnn, filters=["fir"])


def test_overrides_by_name_and_by_regular_expression(small_cnn):
    quantized = convert(
        small_cnn,
        overrides={
            "first": CONFIG.replace(bits=6),
            "sec.*": dqa.DQAConfig(bits=3, method="noisyquant"),
        },
    )
    first, second = quantizer_layers(quantized)
    assert (type(first), first.bits) == (dqa.layers.DQA, 6)
    assert (type(second), second.bits) == (dqa.layers.NoisyQuant, 3)


def test_an_override_of_none_leaves_the_layer_alone(small_cnn):
    quantized = convert(small_cnn, overrides={"first": None})
    assert names(quantized) == ["second_dqa"]
    assert reasons(quantized)["first"] == "override 'first' is None"


def test_the_first_override_that_matches_counts(small_cnn):
    quantized = convert(
        small_cnn,
        overrides={"first": CONFIG.replace(bits=2), ".*": CONFIG.replace(bits=5)},
    )
    assert [layer.bits for layer in quantizer_layers(quantized)] == [2, 5]


def test_an_override_can_name_a_merge(merged):
    quantized = convert(merged, overrides={"sum": CONFIG.replace(bits=6)})
    assert quantized.get_layer("sum_dqa").bits == 6
    assert "cat_dqa" not in names(quantized)


def test_overrides_reach_into_nested_models():
    inputs = keras.Input((4,))
    inner = nested_ending_in_an_activation()
    model = keras.Model(inputs, dense("head")(inner(inputs)))
    quantized = convert(
        model,
        overrides={"mid": CONFIG.replace(bits=2), "end": CONFIG.replace(bits=3)},
    )
    bits = {layer.name: layer.bits for layer in quantizer_layers(quantized)}
    assert bits == {"inner_mid_dqa": 2, "inner_dqa": 3}


@pytest.mark.parametrize("pattern", ["frist", "linear", "*", "(first"])
def test_what_matches_no_activation_is_an_error(small_cnn, pattern):
    for options in ({"filters": [pattern]}, {"overrides": {pattern: None}}):
        with pytest.raises(ValueError, match="must match") as error:
            convert(small_cnn, **options)
        assert repr(pattern) in str(error.value)


def test_a_name_with_special_characters_is_taken_literally():
    model = keras.Sequential([keras.Input((4,)), dense("d(1", "relu"), dense("head")])
    assert names(convert(model, filters=["d(1"])) == ["d(1_dqa"]


# ---- what cannot be converted


class _Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = kl.Dense(2, activation="relu")

    def call(self, x):
        return self.dense(x)


def test_a_subclassed_model_is_told_how_to_add_layers_by_hand():
    with pytest.raises(ValueError, match="Functional or Sequential") as error:
        convert(_Subclassed())
    message = str(error.value)
    assert "Received: _Subclassed" in message
    assert "dqa_keras.layers.DQA(bits=..., extra_bits=...)" in message
    assert "dqa_keras.calibrate(model, data)" in message


def test_something_that_is_no_model_is_refused():
    with pytest.raises(ValueError, match="Received: str"):
        convert("model.keras")


def test_an_unbuilt_sequential_model_is_refused():
    with pytest.raises(ValueError, match=r"must be built first.*keras\.Input"):
        convert(keras.Sequential([dense("d", "relu")]))


def test_a_quantized_model_is_refused(small_cnn):
    with pytest.raises(ValueError, match=r"without quantizers.*'first_dqa'"):
        convert(convert(small_cnn))


@pytest.mark.parametrize("config", [4, None, {"bits": 4}])
def test_a_config_that_is_none_is_refused(small_cnn, config):
    with pytest.raises(ValueError, match="config must be a DQAConfig"):
        dqa.quantize_model(small_cnn, config)


def test_an_override_that_is_no_config_is_refused(small_cnn):
    with pytest.raises(ValueError, match="must be a DQAConfig"):
        convert(small_cnn, overrides={"first": {"bits": 4}})


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (kl.LSTM(3, name="opaque"), (5, 4)),
        (kl.GRU(3, name="opaque"), (5, 4)),
        (kl.Bidirectional(kl.LSTM(3), name="opaque"), (5, 4)),
        (kl.TimeDistributed(keras.Sequential([kl.ReLU()]), name="opaque"), (5, 4)),
        (kl.Lambda(lambda x: keras.ops.relu(x), name="opaque"), (4,)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_layer_with_hidden_activations_is_reported(layer, shape):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, dense("head")(layer(inputs)))
    quantized = convert(model)
    assert names(quantized) == []
    assert reasons(quantized) == {
        "opaque": "its inner layers are out of sight: add dqa_keras.layers.DQA inside "
        "it by hand"
    }
    assert_same_outputs(model, quantized)


def test_multi_head_attention_is_reported():
    inputs = keras.Input((5, 4))
    attention = kl.MultiHeadAttention(2, 2, name="attention")
    model = keras.Model(inputs, dense("head")(attention(inputs, inputs)))
    quantized = convert(model)
    assert list(reasons(quantized)) == ["attention"]
    assert_same_outputs(model, quantized)


def test_an_activation_without_channels_is_reported():
    inputs = keras.Input(batch_shape=(8,))
    activated = kl.Activation("relu", name="flat")(inputs)
    model = keras.Model(inputs, kl.Reshape((1,))(activated))
    quantized = convert(model)
    assert names(quantized) == []
    assert "not one tensor of floats with channels" in reasons(quantized)["flat"]


def test_nothing_is_known_of_a_model_that_was_not_converted(small_cnn):
    assert dqa.skipped(small_cnn) == ()


# ---- the original is not touched, and everything of it is kept


def test_the_original_model_is_not_changed(small_cnn):
    x = random_inputs(small_cnn)
    before = [weight.numpy().tobytes() for weight in small_cnn.weights]
    layers, out = list(small_cnn.layers), outputs(small_cnn, x)
    json = small_cnn.to_json()
    quantized = convert(small_cnn)
    dqa.calibrate(quantized, x, verbose=0)
    for weight in quantized.trainable_weights:
        weight.assign(weight + 1)
    assert [weight.numpy().tobytes() for weight in small_cnn.weights] == before
    assert small_cnn.layers == layers
    assert small_cnn.to_json() == json
    assert outputs(small_cnn, x) == out
    assert not any(isinstance(layer, Quantizer) for layer in small_cnn.layers)


def test_weights_are_copies(small_cnn):
    quantized = convert(small_cnn)
    for layer in small_cnn.layers:
        twin = quantized.get_layer(layer.name)
        assert twin is not layer
        for ours, theirs in zip(layer.weights, twin.weights, strict=True):
            assert ours is not theirs
            assert ours.numpy().tobytes() == theirs.numpy().tobytes()


def test_name_inputs_and_trainable_flags_are_kept(small_cnn):
    model = keras.models.clone_model(small_cnn)
    model.get_layer("first").trainable = False
    quantized = convert(model)
    assert quantized.name == model.name
    assert quantized.input_shape == model.input_shape
    assert quantized.output_shape == model.output_shape
    assert quantized.get_layer("first").trainable is False
    assert quantized.get_layer("linear").trainable is True


def test_layers_with_state_beyond_their_weights_keep_it():
    normalization = kl.Normalization(name="norm")
    normalization.adapt(np.random.default_rng(0).normal(3, 5, (100, 4)))
    model = keras.Sequential(
        [
            keras.Input((4,)),
            normalization,
            kl.BatchNormalization(name="bn"),
            dense("d", "relu"),
            dense("head"),
        ]
    )
    bn = model.get_layer("bn")
    bn.moving_mean.assign([1.0, 2.0, 3.0, 4.0])
    bn.moving_variance.assign([4.0, 3.0, 2.0, 1.0])
    assert_same_outputs(model, convert(model))


def test_the_converted_model_is_compiled_as_the_original_was(small_cnn):
    model = keras.models.clone_model(small_cnn)
    model.compile(
        keras.optimizers.SGD(0.25, momentum=0.5),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    quantized = convert(model)
    assert isinstance(quantized.optimizer, keras.optimizers.SGD)
    assert quantized.optimizer is not model.optimizer
    assert float(quantized.optimizer.learning_rate) == 0.25
    assert quantized.optimizer.momentum == 0.5
    x = random_inputs(model)
    y = np.array([0, 1, 2])
    original = model.evaluate(x, y, verbose=0, return_dict=True)
    converted = quantized.evaluate(x, y, verbose=0, return_dict=True)
    assert set(converted) == {"loss", "accuracy"}
    assert converted == pytest.approx(original)
    quantized.fit(x, y, verbose=0)
    assert int(model.optimizer.iterations) == 0


def test_a_model_compiled_with_functions_of_the_user_stays_so(small_cnn):
    def loss(y, prediction):
        return keras.ops.mean((y - prediction) ** 4)

    def metric(y, prediction):
        return keras.ops.max(prediction)

    model = keras.models.clone_model(small_cnn)
    model.compile("adam", loss, metrics=[metric, keras.metrics.MeanSquaredError()])
    x, y = random_inputs(model), np.zeros((3, 4))
    original = model.evaluate(x, y, verbose=0)
    assert convert(model).evaluate(x, y, verbose=0) == pytest.approx(original)


def test_a_model_that_is_not_compiled_stays_so(small_cnn):
    assert not convert(small_cnn).compiled


def test_a_converted_model_survives_its_file(small_cnn, tmp_path):
    quantized = convert(small_cnn)
    x = random_inputs(small_cnn)
    dqa.calibrate(quantized, x, verbose=0)
    quantized.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert outputs(loaded, x) == outputs(quantized, x)


@pytest.mark.parametrize("model_policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("policy_now", ["float32", "mixed_float16"])
def test_the_dtype_policy_at_conversion_changes_nothing(model_policy, policy_now):
    keras.config.set_dtype_policy(model_policy)
    inputs = keras.Input((4,))
    x = dense("d", "relu")(inputs)
    model = keras.Model(inputs, keras.ops.tanh(x) * x)
    keras.config.set_dtype_policy(policy_now)
    quantized = convert(model)
    assert names(quantized)[0] == "d_dqa"
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    ours, theirs = model(values), quantized(values)
    assert ours.dtype == theirs.dtype
    cast = tf.cast(ours, tf.float32).numpy()
    assert cast.tobytes() == tf.cast(theirs, tf.float32).numpy().tobytes()


@pytest.mark.filterwarnings("ignore:.*includes a `lambda`")
def test_functions_of_the_user_are_kept():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            kl.Dense(4, activation=_doubled, name="d"),
            kl.Lambda(lambda x: np.float32(3) * x, name="lambda"),
            kl.Activation(lambda x: keras.ops.tanh(x), name="a"),
            dense("head"),
        ]
    )
    quantized = convert(model)
    assert names(quantized) == ["d_dqa", "a_dqa"]
    assert_same_outputs(model, quantized)


# ---- activations as objects, wrappers, custom layers


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda: kl.LeakyReLU(negative_slope=0.1),
        lambda: kl.ReLU(6.0),
        kl.PReLU,
        kl.ELU,
        lambda: kl.Activation("tanh"),
    ],
)
def test_an_activation_given_as_a_layer_is_quantized(make, wrapped, tmp_path):
    activation = make()
    layer = kl.Dense(4, activation=activation, name="a")
    layer = kl.TimeDistributed(layer, name="a") if wrapped else layer
    model = keras.Sequential([keras.Input((5, 3)), layer, dense("head")])
    model(np.zeros((1, 5, 3), np.float32))  # only now does Keras build a PReLU
    for weight in activation.weights:
        weight.assign(weight + 0.3)
    quantized = convert(model)
    assert names(quantized) == ["a_dqa"]
    assert dqa.skipped(quantized) == ()
    assert_same_outputs(model, quantized)
    x = random_inputs(model, 16)
    dqa.calibrate(quantized, x, verbose=0)
    quantized.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert outputs(loaded, x) == outputs(quantized, x)


def test_an_activation_layer_that_was_never_built_is_built():
    layer = kl.Conv2D(4, 3, activation=kl.PReLU(shared_axes=[1, 2]), name="a")
    model = keras.Sequential([keras.Input((8, 8, 3)), layer, kl.Flatten(), dense("h")])
    quantized = convert(model)
    dqa.calibrate(quantized, random_inputs(model, 8), verbose=0)
    assert quantized.get_layer("a_dqa").is_calibrated


class _Halved(kl.Layer):
    """An activation layer of the user, not registered."""

    def call(self, x):
        return keras.ops.where(x > 0, x, 0.5 * x)


def test_an_activation_layer_of_the_user_is_quantized():
    layer = kl.Dense(4, activation=_Halved(), name="a")
    model = keras.Sequential([keras.Input((3,)), layer, dense("head")])
    quantized = convert(model)
    assert names(quantized) == ["a_dqa"]
    assert_same_outputs(model, quantized)


class _Residual(kl.Layer):
    """A custom block of known layers, with another one inside."""

    def __init__(self, depth=1, **kwargs):
        super().__init__(**kwargs)
        self.depth = depth
        self.one = kl.Dense(4, activation="relu", name="one")
        self.two = kl.Dense(4, name="two")
        self.norm = kl.BatchNormalization(name="norm")
        self.inner = _Residual(depth - 1, name="inner") if depth else kl.Identity()

    def call(self, x, training=None):
        y = self.norm(self.two(self.one(x)), training=training)
        return keras.ops.relu(self.inner(y) + x)

    def get_config(self):
        return {**super().get_config(), "depth": self.depth}


def test_a_custom_block_of_known_layers_is_quantized_inside():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, dense("head")(_Residual(name="block")(inputs)))
    x = random_inputs(model)
    before = len(model.get_layer("block").one._inbound_nodes)
    quantized = convert(model)
    assert set(names(quantized)) == {
        "block_one_dqa",
        "block_inner_one_dqa",
        "block_inner_dqa",
        "block_dqa",
    }
    assert_same_outputs(model, quantized)
    assert len(model.get_layer("block").one._inbound_nodes) == before
    dqa.calibrate(quantized, x, verbose=0)
    assert outputs(quantized, x) != outputs(model, x)


class _Gated(kl.Layer):
    """Its graph would not tell all: it reads a weight of its own."""

    def build(self, input_shape):
        self.gate = self.add_weight(shape=(4,), name="gate")
        self.dense = kl.Dense(4, activation="relu")
        self.dense.build(input_shape)

    def call(self, x):
        return self.dense(x) * self.gate


class _Switched(kl.Layer):
    """It computes something else in training."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = kl.Dense(4, activation="relu")

    def call(self, x, training=None):
        return keras.ops.sqrt(self.dense(x)) if training else self.dense(x)


@pytest.mark.parametrize("block", [_Gated, _Switched])
def test_a_custom_block_that_no_graph_tells_all_of_is_reported(block):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, dense("head")(block(name="block")(inputs)))
    with pytest.warns(UserWarning, match="no quantizer .* block: its inner layers"):
        quantized = convert(model)
    assert "add dqa_keras.layers.DQA inside it by hand" in reasons(quantized)["block"]
    assert_same_outputs(model, quantized)


# ---- merges and other computations written as operators


_MERGES = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "maximum": keras.ops.maximum,
    "concatenate": lambda a, b: keras.ops.concatenate([a, b], -1),
    "stack": lambda a, b: keras.ops.stack([a, b], 1),
    "where": lambda a, b: keras.ops.where(a > 0, a, b),
    "Add": lambda a, b: kl.Add()([a, b]),
    "Multiply": lambda a, b: kl.Multiply()([a, b]),
    "Average": lambda a, b: kl.Average()([a, b]),
}


@pytest.mark.parametrize("merge", _MERGES.values(), ids=_MERGES)
def test_every_merge_is_quantized_or_reported(merge):
    inputs = keras.Input((4,))
    merged = merge(dense("a", "relu")(inputs), dense("b")(inputs))
    name = merged._keras_history.operation.name
    model = keras.Model(inputs, dense("head")(merged))
    off = convert(model)
    assert names(off) == ["a_dqa"]
    assert reasons(off) == {name: "a merge, and quantize_merges is off"}
    on = convert(model, CONFIG.replace(quantize_merges=True))
    assert set(names(on)) == {"a_dqa", f"{name}_dqa"}
    assert dqa.skipped(on) == ()
    assert_same_outputs(model, on)


_COMPUTED = [
    keras.ops.exp,
    keras.ops.abs,
    lambda x: keras.ops.clip(x, 0, 6),
    lambda x: keras.ops.maximum(x, 0.0),
    lambda x: 1 / (x + 3),
    lambda x: x**2,
    kl.LayerNormalization(),
    _Halved(),
]


@pytest.mark.parametrize("function", _COMPUTED)
def test_a_computation_that_is_not_known_is_reported(function):
    inputs = keras.Input((4,))
    computed = function(dense("a", "relu")(inputs))
    model = keras.Model(inputs, dense("head")(computed))
    quantized = convert(model)
    operation = computed._keras_history.operation
    assert names(quantized) == ["a_dqa"]
    assert reasons(quantized) == {
        operation.name: f"what {type(operation).__name__} computes is not known to be "
        "an activation: add dqa_keras.layers.DQA after it by hand"
    }


_PASSED = [
    lambda x: 2 * x + 1,
    lambda x: x / 255.0,
    lambda x: -x[:, 1:],
    lambda x: keras.ops.reshape(x, (-1, 2, 2)),
    lambda x: keras.ops.split(x, 2, -1)[0],
    lambda x: keras.ops.mean(x, -1, keepdims=True),
    lambda x: keras.ops.matmul(x, np.ones((4, 3), np.float32)),
    lambda x: keras.ops.cast(keras.ops.argmax(x, -1, keepdims=True), "float32"),
]


@pytest.mark.parametrize("function", _PASSED)
def test_what_moves_values_or_is_linear_is_not_reported(function):
    inputs = keras.Input((4,))
    computed = function(dense("a", "relu")(inputs))
    quantized = convert(keras.Model(inputs, dense("head")(computed)))
    assert names(quantized) == ["a_dqa"]
    assert dqa.skipped(quantized) == ()


def test_a_residual_stream_of_operators_is_linear_too():
    inputs = keras.Input((4,))
    x = dense("a")(inputs) + dense("b")(inputs)
    total = x._keras_history.operation.name
    model = keras.Model(inputs, dense("head")(kl.ReLU(name="r")(x) + x))
    quantized = convert(model, CONFIG.replace(quantize_linear=True))
    assert {"r_dqa", f"{total}_dqa"} <= set(names(quantized))


# ---- channels first, nothing to quantize


class _Whole(kl.Layer):
    """Holds a layer out of sight: its own weight keeps it whole."""

    def __init__(self, inner, **options):
        super().__init__(**options)
        self.inner = inner

    def build(self, shape):
        self.gain = self.add_weight(shape=())

    def call(self, x):
        return self.inner(x) * self.gain


@pytest.mark.parametrize(
    "make",
    [
        lambda: kl.Conv2D(4, 3, data_format="channels_first", name="bad"),
        lambda: kl.UpSampling2D(data_format="channels_first", name="bad"),
        lambda: kl.BatchNormalization(axis=1, name="bad"),
        lambda: kl.GroupNormalization(2, axis=1, name="bad"),
        lambda: kl.TimeDistributed(kl.Conv1D(4, 3, data_format="channels_first")),
        lambda: kl.TimeDistributed(
            keras.Sequential([kl.Conv1D(4, 3, data_format="channels_first")])
        ),
        lambda: _Whole(kl.Conv2D(4, 3, data_format="channels_first", name="bad")),
        lambda: keras.Sequential(
            [kl.ZeroPadding2D(data_format="channels_first", name="bad")]
        ),
    ],
)
def test_channels_first_is_refused_with_the_way_out(make):
    model = keras.Sequential([keras.Input((8, 8, 8)), make(), kl.ReLU()])
    with pytest.raises(ValueError, match="channels on the last axis") as error:
        convert(model)
    assert re.search("'(bad|conv1d.*)' with ", str(error.value))
    assert "channels_last" in str(error.value)


def test_a_model_without_activations_is_told_at_once():
    model = keras.Sequential([keras.Input((4,)), dense("a"), dense("head")])
    with pytest.warns(UserWarning, match=r"no quantizer was put .* by hand where"):
        convert(model)
