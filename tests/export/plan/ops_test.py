"""The table of ops against all that must agree with it."""

import re
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import dqa_keras.export
from dqa_keras.export.plan.ops import KNOTS, OpCode, Weights, Window
from dqa_keras.export.plan.program import conv_layout, depthwise_layout
from dqa_keras.export.plan.reference import FUNCTIONS

FORMAT = Path(dqa_keras.export.__file__).parent / "FORMAT.md"


def test_format_lists_every_op():
    text = FORMAT.read_text()
    listed = re.findall(r"^\| (\d+) \| ([A-Z_]+) \| (.*) \|$", text, re.MULTILINE)
    expected = []
    for code in OpCode:
        dtype, _, layout = code.rule.weights.value.partition(" ")
        computes = code.rule.computes
        computes += f". Weights {dtype} `{layout}`" if layout else ""
        expected.append((str(int(code)), code.name, computes))
    assert listed == expected


def test_every_op_has_a_reference():
    assert list(FUNCTIONS) == list(OpCode)


def test_codes_are_the_numbers_of_plans():
    assert [int(code) for code in OpCode] == list(range(len(OpCode)))


@pytest.mark.parametrize("code", OpCode)
def test_only_sums_have_weights_and_addends(code):
    # GATHER's weights are numbers of channels, and its single tap may lie outside.
    moves = code == OpCode.GATHER
    assert code.rule.weights == Weights.NONE or code.adds or moves
    assert code.rule.operands[0] or code.adds
    assert code.rule.taps or not code.rule.frame or moves


@pytest.mark.parametrize("outputs", [1, 16, 17])
@pytest.mark.parametrize("inputs", [1, 4, 5])
def test_weights_have_the_size_of_their_layout(outputs, inputs):
    window = Window(3, 2)
    kernel = np.zeros((outputs, 3, 2, inputs), np.int8)
    tiles = np.zeros((outputs, 4, 4, inputs), np.int8)
    for weights, laid in (
        (Weights.CONV, conv_layout(kernel)),
        (Weights.TILES, conv_layout(tiles)),
    ):
        assert weights.size(window, inputs, outputs) == laid.nbytes
    laid = depthwise_layout(np.zeros((3, 2, outputs), np.int8))
    assert Weights.DEPTHWISE.size(window, outputs, outputs) == laid.nbytes
    knots = np.zeros(KNOTS, np.int16)
    assert Weights.KNOTS.size(window, outputs, outputs) == knots.nbytes
    channels = np.zeros(outputs, np.uint16)
    assert Weights.CHANNELS.size(window, inputs, outputs) == channels.nbytes


@hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
@hypothesis.given(
    st.sampled_from(OpCode),
    st.builds(
        Window,
        st.integers(1, 4), st.just(1), st.tuples(st.integers(1, 3), st.just(1)),
        st.tuples(st.integers(1, 2), st.just(1)), st.integers(0, 3),
    ),
    st.integers(0, 9),
    st.integers(1, 9),
)  # fmt: skip
def test_rows_read_by_a_range_are_those_read_by_each_row(code, window, first, count):
    rows = code.rule.rows
    each = [rows(window, y, y + 1) for y in range(first, first + count)]
    assert rows(window, first, first + count) == (each[0][0], each[-1][1])
    assert all(low < high for low, high in each)
    assert each == sorted(each)
