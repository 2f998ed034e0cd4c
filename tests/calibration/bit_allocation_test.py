import numpy as np
import pytest

from dqa_keras.calibration import bit_allocation
from dqa_keras.calibration.observers import Observer
from dqa_keras.codec import blocks, huffman, sizes


def observer_of(samples):
    observer = Observer(samples.shape[1])
    observer.update(samples, samples.min(0), samples.max(0))
    observer.values = samples.size
    return observer


def demand(seed=0, channels=16, signed=False, code_base=False, weight=1.0):
    """Sparse as behind a ReLU, or signed; channels differ in range and weight."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(3000, channels)) * random.uniform(0.5, 4, channels)
    x = (x if signed else np.maximum(x, 0)).astype(np.float32)
    return bit_allocation.Demand(
        observer_of(x),
        signed,
        weight * random.uniform(0.1, 10, channels),
        bit_allocation.strips_of((32, 32, channels), 1024 * channels),
        code_base,
    )


@pytest.fixture(scope="module")
def demands():
    return [demand(0), demand(1, signed=True), demand(2, weight=100.0)]


def bits_of(demands, choices):
    return sum(c.expected_bits for c in choices) / sum(d.activations for d in demands)


@pytest.mark.parametrize("bits", [1.5, 2.5, 4.3])
@pytest.mark.parametrize("code_base", [False, True])
def test_the_budget_is_met_from_below(demands, bits, code_base):
    demands = [d._replace(code_base=code_base) for d in demands]
    total = bits * sum(d.activations for d in demands)
    choices = bit_allocation.solve(demands, total)
    # A channel of 48 is the least that can be added.
    assert 0.98 * bits < bits_of(demands, choices) <= bits
    for wanted, choice in zip(demands, choices, strict=True):
        assert choice.bits >= 1
        assert 0 <= choice.extra_bits <= 4
        assert choice.bits + choice.extra_bits <= 8
        assert choice.mask.shape == choice.scale.shape == (wanted.channels,)
        assert choice.scale.dtype == np.float32
        assert np.all(choice.scale > 0)
        assert choice.extra_bits or not choice.mask.any()


def test_more_bits_lose_less_and_coding_base_codes_saves(demands):
    activations = sum(d.activations for d in demands)
    losses = [
        sum(c.loss for c in bit_allocation.solve(demands, bits * activations))
        for bits in (1.5, 2.0, 3.0, 4.0)
    ]
    assert losses == sorted(losses, reverse=True)
    coded = [d._replace(code_base=True) for d in demands]
    choices = bit_allocation.solve(coded, 2.0 * activations)
    assert sum(c.loss for c in choices) < 0.8 * losses[1]


def test_it_beats_the_same_bits_everywhere(demands):
    """Three bits in every channel of every layer, at the range of smallest error."""
    layers = [bit_allocation._Layer(d) for d in demands]
    plain = sum(layer.choose((3, 0), 0.0).loss for layer in layers)
    choices = bit_allocation.solve(demands, 3.0 * sum(d.activations for d in demands))
    assert sum(c.loss for c in choices) < 0.5 * plain


def test_what_matters_more_gets_more_bits():
    alike = [demand(5, weight=weight) for weight in (1.0, 1000.0)]
    choices = bit_allocation.solve(alike, 3.0 * 2 * alike[0].activations)
    assert choices[1].expected_bits > 1.5 * choices[0].expected_bits


def test_a_budget_that_cannot_be_met_names_the_least(demands):
    activations = sum(d.activations for d in demands)
    with pytest.raises(
        ValueError, match=r"at least 1\.0.* bits per activation .*Received: 0\.900"
    ):
        bit_allocation.solve(demands, 0.9 * activations)


def test_more_than_all_bits_are_not_spent(demands):
    activations = sum(d.activations for d in demands)
    choices = bit_allocation.solve(demands, 20 * activations)
    assert bits_of(demands, choices) < 9


def test_channels_that_were_always_zero_get_a_usable_scale():
    x = np.zeros((50, 3), np.float32)
    x[:, 1] = np.linspace(0, 2, 50)
    zero = bit_allocation.Demand(observer_of(x), False, np.ones(3), (64,), False)
    (choice,) = bit_allocation.solve([zero], 3.0 * zero.activations)
    assert np.all(np.isfinite(1 / choice.scale))
    dead = bit_allocation.Demand(
        observer_of(np.zeros((5, 2), np.float32)), False, np.zeros(2), (64,), True
    )
    (choice,) = bit_allocation.solve([dead], 3.0 * dead.activations)
    assert np.all(np.isfinite(1 / choice.scale))


def rare(images, positions, channels=8):
    """All channels reach 6, but the last one has been seen near 0 only."""
    x = np.random.default_rng(0).uniform(0, 6, (images * positions, channels))
    x[:, -1] *= 0.1 / 6
    return bit_allocation.Demand(
        observer_of(x.astype(np.float32)),
        False,
        np.ones(channels),
        (positions,),
        False,
    )


def tops(demand, bits):
    """The largest value that each channel can hold."""
    (choice,) = bit_allocation.solve([demand], bits * demand.activations)
    code_bits = choice.bits + np.where(choice.mask, choice.extra_bits, 0)
    return choice.scale * (2**code_bits - 1)


def test_few_images_leave_room_for_what_was_never_seen():
    few, many = (tops(rare(images, positions=1), 3.0) for images in (20, 100_000))
    assert few[-1] > 4 * 0.1
    assert many[-1] < 2.5 * 0.1
    assert min(few[:-1].min(), many[:-1].min()) > 5


def test_a_channel_that_was_always_zero_can_hold_what_the_layer_does():
    wanted = rare(images=50, positions=25)
    x = np.random.default_rng(0).uniform(0, 6, (1250, 8)).astype(np.float32)
    x[:, 3] = 0
    limits = tops(wanted._replace(observer=observer_of(x)), 5.0)
    assert 3 < limits[3] < 12


def test_the_layers_values_count_the_same_in_bins_of_any_width():
    x = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    x *= np.float32([1, 2.0**-4, 2.0**-9])
    layer = bit_allocation._Layer(
        bit_allocation.Demand(observer_of(x), True, np.ones(3), (25,), False)
    )
    width = layer.demand.observer.width
    pooled = layer.demand.observer.pooled()
    for bits in (2, 5):
        errors = layer._layer_error(bits, True) * width[:, None] ** 2
        values = np.concatenate(
            [
                sign * (np.arange(bit_allocation.BINS) + 0.5) * pooled.width
                for _, sign in pooled.sides()
            ]
        )
        share = np.concatenate([side[0] for side, _ in pooled.sides()]) / x.size
        for channel in range(3):
            limits = bit_allocation._THRESHOLDS * width[channel]
            scale = limits / (2 ** (bits - 1) - 1)
            codes = np.rint(values[:, None] / scale)
            codes = np.clip(codes, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            expected = share @ (values[:, None] - codes * scale) ** 2
            np.testing.assert_allclose(errors[channel], expected, rtol=2e-3)


@pytest.mark.parametrize("shape", [(32, 32, 16), (5, 7, 3), (40,), (0, 0, 8)])
def test_strips_hold_every_pixel_once(shape):
    activations = int(np.prod([size or 9 for size in shape]))
    strips = bit_allocation.strips_of(shape, activations)
    assert sum(strips) * shape[-1] == activations
    if shape == (32, 32, 16):
        rows = sizes.default_strip_rows(32, 32 * 16)
        assert len(strips) == -(-32 // rows)


@pytest.mark.parametrize("count", [100, 5000, 40000])
def test_section_bits_are_those_of_real_blocks(count):
    symbols = np.random.default_rng(0).choice(4, count, p=[0.7, 0.1, 0.1, 0.1])
    lengths = huffman.code_lengths(np.bincount(symbols))
    written = 8 * len(blocks.write_blocks(symbols.astype(np.uint8), 2, lengths))
    coded = float(lengths[symbols].sum())
    bits = bit_allocation.section_bits((count // 4,), 4, 2, coded)
    assert bits == pytest.approx(written, abs=8 * 4 * (1 + count // 16384))
    raw = bit_allocation.section_bits((count // 4,), 4, 2, 3.0 * count)
    assert raw == 8 * blocks.blocks_bound(count, 2)
