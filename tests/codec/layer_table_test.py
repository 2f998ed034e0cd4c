import dataclasses

import numpy as np
import pytest

from dqa_keras import LayerTable


def make(**changes):
    fields = {
        "name": "relu",
        "bits": 2,
        "extra_bits": 1,
        "signed": False,
        "shape": (4, 4, 3),
        "mask": np.array([True, False, True]),
        "scale": np.float32([0.1, 0.2, 0.3]),
        "residual_lengths": np.uint8([1, 1]),
        "base_lengths": np.uint8([1, 2, 3, 3]),
    }
    return LayerTable(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"bits": 0}, r"bits must be in 1\.\.8.*bits=0"),
        ({"bits": 9}, r"bits must be in 1\.\.8.*bits=9"),
        ({"extra_bits": -1}, r"extra_bits must be in 0\.\.4.*extra_bits=-1"),
        ({"extra_bits": 5}, "extra_bits=5"),
        ({"bits": 7, "extra_bits": 2}, "at most 8.*bits=7, extra_bits=2"),
        ({"shape": (4, 4)}, r"number of channels.*shape=\(4, 4\), 3 channels"),
        ({"shape": ()}, r"number of channels.*shape=\(\)"),
        ({"shape": (-1, 3)}, r"must not be negative.*\(-1, 3\)"),
        ({"scale": np.float32([1, 1])}, "one positive finite number per channel"),
        ({"scale": np.float32([1, 0, 1])}, "one positive finite number per channel"),
        ({"scale": np.float32([1, -1, 1])}, "one positive finite number per channel"),
        ({"scale": np.float32([1, np.nan, 1])}, "one positive finite number"),
        ({"scale": np.float32([1, np.inf, 1])}, "one positive finite number"),
        ({"residual_lengths": np.uint8([0])}, r"residual_lengths must hold 2.*\(1,\)"),
        ({"base_lengths": np.uint8([1, 1])}, r"base_lengths must hold 4.*\(2,\)"),
        ({"residual_lengths": np.uint8([1, 2])}, "incomplete"),
        ({"base_lengths": np.uint8([1, 1, 2, 2])}, "over-subscribed"),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_the_layers_name(changes, rule):
    with pytest.raises(ValueError, match=rule) as error:
        make(**changes)
    assert str(error.value).startswith("table of layer 'relu': ")


def test_unknown_sizes_are_zero():
    assert make(shape=(0, 0, 3)).shape == (0, 0, 3)


def test_equality_compares_arrays_element_by_element():
    assert make() == make()
    assert make() != "relu"
    for changes in (
        {"name": "other"},
        {"signed": True},
        {"shape": (4, 3)},
        {"mask": np.array([True, True, True])},
        {"scale": np.float32([0.1, 0.2, 0.4])},
        {"base_lengths": np.uint8([2, 2, 2, 2])},
    ):
        assert make() != make(**changes)


def test_a_table_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().bits = 3


def test_inverse_scale_is_the_float32_reciprocal():
    table = make(scale=np.float32([0.1, 3.0, 7.0]))
    assert table.inverse_scale.dtype == np.float32
    expected = [np.float32(1) / np.float32(s) for s in (0.1, 3.0, 7.0)]
    assert table.inverse_scale.tolist() == expected


def test_storage_counts_a_bit_of_mask_a_channel_and_a_byte_a_residual():
    assert make().storage_bits == 3 + 8 * 2
    without = make(extra_bits=0, residual_lengths=np.uint8([0]))
    assert without.storage_bits == 3 + 8
