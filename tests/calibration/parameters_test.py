import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.layers import quantizer_layers


@pytest.fixture(scope="module")
def network():
    """Convolutions over 16 x 16 pixels; `b` sees both signs."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16, 16, 2))
    x = keras.layers.Conv2D(12, 3, activation="relu", name="a")(inputs)
    x = keras.layers.Conv2D(16, 3, activation="tanh", name="b")(x)
    x = keras.layers.Conv2D(8, 3, activation="relu", name="c")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(5)(x))


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).normal(size=(160, 16, 16, 2)).astype(np.float32)


def calibrated(network, data, overrides=None, **options):
    model = dqa.quantize_model(network, dqa.DQAConfig(**options), overrides=overrides)
    dqa.calibrate(model, data, verbose=0)
    return model


def error(network, model, x):
    expected = network.predict(x, verbose=0)
    return float(np.mean((model.predict(x, verbose=0) - expected) ** 2))


@pytest.mark.parametrize(
    "options",
    [
        {"budget_bits": 2.5},
        {"budget_bits": 2.5, "entropy": "all"},
        {"budget_bits": 4.3, "ranking": "fisher"},
        {"budget_bits": 3.0, "ranking": "mse", "signed": True},
    ],
    ids=str,
)
def test_a_budget_is_met_on_unseen_data(network, data, options):
    model = calibrated(network, data[:80], **options)
    measured = dqa.storage_bits(model, data[80:])
    assert measured.total == pytest.approx(options["budget_bits"], rel=0.01)


def test_a_budget_in_kib(network, data):
    model = calibrated(network, data[:80], budget_kib=1.5)
    assert dqa.storage_bits(model, data[80:]).kib == pytest.approx(1.5, rel=0.01)


def test_a_budget_beats_three_bits_everywhere(network, data):
    direct = calibrated(network, data[:80], bits=3, method="direct")
    budget = calibrated(network, data[:80], budget_bits=3.0)
    coded = calibrated(network, data[:80], budget_bits=3.0, entropy="all")
    errors = [error(network, model, data[80:]) for model in (coded, budget, direct)]
    assert errors == sorted(errors)


def test_a_channel_without_gradient_is_not_given_up_under_a_budget():
    """A ReLU stops channel 0 on all data, until much of it is clipped."""
    x = np.random.default_rng(0).uniform(4, 6, (64, 64, 4)).astype(np.float32)
    inputs = keras.Input((64, 4))
    hidden = dqa.layers.DQA(budget_bits=3.0, name="q")(inputs)
    behind = keras.layers.Dense(4, activation="relu")
    head = keras.layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, head(behind(hidden)))
    kernel = np.eye(4, dtype=np.float32)
    kernel[0, 0] = -1
    behind.set_weights([kernel, np.float32([3, 0, 0, 0])])
    head.set_weights([np.float32([[9], [1], [1], [1]])])
    dqa.calibrate(model, x, verbose=0)
    rounded = keras.ops.convert_to_numpy(model.get_layer("q")(x))
    assert np.mean((rounded - x)[..., 0] ** 2) < 0.1


def test_a_budget_covers_layers_that_are_set_otherwise(network, data):
    fixed = dqa.DQAConfig(bits=5, extra_bits=1)
    model = calibrated(network, data[:80], {"b": fixed}, budget_bits=4.0)
    assert model.get_layer("b_dqa").bits == 5
    # The 20 channels left to choose for are few.
    assert dqa.storage_bits(model, data[80:]).total == pytest.approx(4.0, rel=0.03)


def test_a_budgeted_model_is_the_same_from_a_file_and_as_a_clone(
    network, data, tmp_path
):
    model = calibrated(network, data[:80], budget_bits=2.5, entropy="all")
    expected = model.predict(data[:4], verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    assert not any(layer.is_calibrated for layer in quantizer_layers(clone))
    clone.set_weights(model.get_weights())
    for other in (loaded, clone):
        np.testing.assert_array_equal(other.predict(data[:4], verbose=0), expected)
        for ours, theirs in zip(
            quantizer_layers(model), quantizer_layers(other), strict=True
        ):
            assert ours.table() == theirs.table()
            assert (ours.bits, ours.extra_bits) == (theirs.bits, theirs.extra_bits)
    assert {(layer.bits, layer.extra_bits) for layer in quantizer_layers(model)} != {
        (4, 2)
    }


def test_a_budgeted_model_calibrates_again_where_it_was_traced(network, data):
    model = calibrated(network, data[:80], budget_bits=2.0)
    model.predict(data[:4], verbose=0)
    dqa.calibrate(model, data[:80], verbose=0)
    for layer in quantizer_layers(model):
        layer.assign(
            dqa.layers.QuantizationParameters(
                bits=8,
                extra_bits=0,
                scale=np.full(layer.scale.shape, 2.0**-8, np.float32),
                mask=np.zeros(layer.scale.shape, bool),
                signed=True,
                residual_counts=np.ones(1, int),
                base_counts=np.ones(256, int),
                importance=np.zeros(layer.scale.shape),
                sqnr=1.0,
            )
        )
    predicted = model.predict(data[:4], verbose=0)
    eager = keras.ops.convert_to_numpy(model(data[:4]))
    np.testing.assert_allclose(predicted, eager, atol=1e-3)


def test_rankings_by_gradient_find_what_matters_for_the_output():
    """Channel 0 is by far the largest, but only channel 2 reaches the output."""
    inputs = keras.Input((4,))
    x = np.random.default_rng(0).uniform(0, 1, (64, 4)) * np.array([50, 1, 1, 1])
    for ranking in ("fisher", "output"):
        layer = dqa.layers.DQA(
            bits=2, important_fraction=0.25, ranking=ranking, name="q"
        )
        head = keras.layers.Dense(2, use_bias=False)
        model = keras.Model(inputs, head(layer(inputs)))
        head.set_weights([np.float32([[0, 0], [0, 0], [1, -1], [0.01, 0]])])
        dqa.calibrate(model, x.astype(np.float32), verbose=0)
        assert layer.mask.numpy().tolist() == [False, False, True, False]
        assert layer.importance.numpy()[:2].tolist() == [0, 0]


def test_layers_must_agree(network, data):
    with pytest.raises(ValueError, match=r"agree on the budget.*2\.0.*3\.0"):
        calibrated(
            network, data, {"a": dqa.DQAConfig(budget_bits=2.0)}, budget_bits=3.0
        )
    with pytest.raises(ValueError, match=r"agree on the ranking.*fisher and output"):
        calibrated(
            network,
            data,
            {"a": dqa.DQAConfig(ranking="fisher")},
            ranking="output",
        )


def test_a_budget_that_cannot_be_met_leaves_the_model_as_it_was(network, data):
    model = dqa.quantize_model(network, dqa.DQAConfig(budget_kib=0.01))
    with pytest.raises(ValueError, match="the budget must be at least"):
        dqa.calibrate(model, data, verbose=0)
    assert not any(layer.is_calibrated for layer in quantizer_layers(model))


def test_output_clipping_changes_the_output_less_than_ranges_of_least_error(
    network, data
):
    narrow, wide = (
        calibrated(network, data[:20], bits=2, method="direct", clipping=clipping)
        for clipping in ("output", "mse")
    )
    factors = []
    for name in ("a_direct", "b_direct", "c_direct"):
        scales = [model.get_layer(name).scale.numpy() for model in (narrow, wide)]
        ratios = scales[0] / scales[1]
        factors.append(ratios[0])
        np.testing.assert_allclose(ratios, ratios[0], rtol=1e-6)

        def alone(model, name=name):
            """The error if this layer alone rounds."""
            for layer in quantizer_layers(model):
                layer.calibrated.assign(layer.name == name)
            return error(network, model, data[:20])

        assert alone(narrow) <= alone(wide)
    assert max(abs(np.array(factors) - 1)) > 0.05  # or nothing was tried
