"""Convolutions in tiles: the integers, and the runtime against them."""

import dataclasses

import keras
import numpy as np
import pytest
from programs import Builder, check, slid

import dqa_keras as dqa
from dqa_keras.export import export_tflite
from dqa_keras.export.packed import pack
from dqa_keras.export.plan import winograd
from dqa_keras.export.plan.encoding import describe, encode
from dqa_keras.export.plan.ops import OpCode, Window
from dqa_keras.export.plan.program import conv_layout
from dqa_keras.export.plan.runtime import NativeRuntime, RuntimeFailure
from dqa_keras.export.plan.scheduling import schedule

SAME = Window(3, 3, top=1, left=1)


def one(shape, channels, window=SAME, signed=False):
    build = Builder((*shape, 3))
    first = build.codes((*shape, channels[0]), signed=signed)
    first = build.conv(build.input, first, Window())
    out = build.codes(slid(shape, window, channels[1]), signed=signed)
    build.output(build.conv(first, out, window, tiles=True))
    return build.program


@pytest.mark.parametrize("window", [SAME, Window(3, 3), Window(3, 3, top=2, left=0)])
@pytest.mark.parametrize("size", [(5, 8), (6, 7), (3, 3)])
def test_tiles_are_a_convolution(window, size):
    random = np.random.default_rng(0)
    codes = random.integers(0, 64, (*size, 5))
    # Multiples of 4, so that nothing is rounded.
    kernel = 4 * random.integers(-9, 10, (3, 3, 3, 5))
    weights = winograd.weights_of(kernel)
    np.testing.assert_array_equal(weights, np.rint(weights))
    shape = slid(size, window, 3)
    sums = winograd.convolved(
        codes, weights.astype(np.int64).transpose(1, 2, 3, 0), window, shape[:2]
    )
    pads = [(window.top, 2), (window.left, 2), (0, 0)]
    around = np.pad(codes, pads)
    expected = sum(
        around[y : y + shape[0], x : x + shape[1]] @ kernel[:, y, x].T
        for y in range(3)
        for x in range(3)
    )
    np.testing.assert_array_equal(sums, expected)


@pytest.mark.parametrize("window", [SAME, Window(3, 3), Window(3, 3, top=2, left=0)])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("shape", [(9, 7), (8, 40), (3, 3), (4, 5)])
@pytest.mark.parametrize("channels", [(1, 1), (12, 20), (70, 33), (100, 16)])
def test_the_runtime_computes_tiles(window, signed, shape, channels):
    plan, _ = check(one(shape, channels, window, signed))
    assert "winograd 3x3" in describe(plan)


@pytest.mark.parametrize("weight", [127, -127, -128])
def test_extreme_codes_and_weights(weight):
    program = one((4, 6), (512, 16))
    tiles = program.operations[-2]
    tiles.arrays["weights"][:] = weight
    first = program.operations[1]
    first.arrays["bias"][::2] = 1e6
    first.arrays["power"][:] = 1
    first.arrays["high"][:] = winograd.PEAK
    check(program)


def test_tiles_behind_one_another_with_sums_and_threads():
    build = Builder((24, 30, 3))
    x = build.conv(build.input, build.codes((24, 30, 20)), SAME)
    for _ in range(5):
        y = build.conv(x, build.codes((24, 30, 36)), SAME, tiles=True)
        y = build.conv(y, build.codes((24, 30, 20)), SAME, tiles=True)
        x = build.addition([x, y], build.codes((24, 30, 20)))
    build.output(x)
    check(build.program)


def test_few_tiles_of_many_channels_are_shared_by_threads():
    build = Builder((4, 4, 3))
    x = build.conv(build.input, build.codes((4, 4, 300)), Window())
    x = build.conv(x, build.codes((4, 4, 330)), SAME, tiles=True)
    build.output(x)
    check(build.program)


def test_codes_that_do_not_fit_are_refused():
    plan, constants = schedule(one((4, 6), (8, 16)))
    op = next(op for op in plan.ops if op.code == OpCode.WINOGRAD)
    plan.buffers[op.links[0].buffer].peak = winograd.PEAK + 1
    with pytest.raises(RuntimeFailure, match="tiles are of codes up to 63"):
        NativeRuntime(encode(plan), constants)


@pytest.mark.parametrize(
    "window", [Window(3, 3, (2, 1), top=1, left=1), Window(1, 3, left=1)]
)
def test_other_windows_are_refused(window):
    plan, constants = schedule(one((5, 6), (8, 16)))
    op = next(op for op in plan.ops if op.code == OpCode.WINOGRAD)
    op.window = window
    with pytest.raises(RuntimeFailure, match=r"tiles are of 3x3 taps|row"):
        NativeRuntime(encode(plan), constants)


def test_a_tile_may_not_reach_past_the_columns_of_its_input():
    program = one((5, 7), (8, 16))
    plan, constants = schedule(program)
    op = next(op for op in plan.ops if op.code == OpCode.WINOGRAD)
    line_buffer = plan.buffers[op.links[0].buffer]
    assert line_buffer.right == 2
    line_buffer.right, line_buffer.left = 1, 2
    with pytest.raises(RuntimeFailure, match="reaches past the columns"):
        NativeRuntime(encode(plan), constants)


def test_tiles_are_chosen_where_they_pay():
    large = 512 * 512 * 32
    assert winograd.pays(64, (128, 128, 64), large)
    assert not winograd.pays(64, (128, 128, 64), 1000)  # too much room
    assert not winograd.pays(3, (512, 512, 16), large)
    assert not winograd.fits(SAME, 64, 8)
    assert not winograd.fits(dataclasses.replace(SAME, stride=(2, 2)), 63, 8)
    assert not winograd.fits(Window(1, 3), 63, 8)
    assert winograd.fits(SAME, 63, winograd.CHANNELS)
    assert not winograd.fits(SAME, 63, winograd.CHANNELS + 1)


def test_a_model_computes_in_tiles_what_keras_does(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((96, 96, 3))
    for _ in range(3):
        x = keras.layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    outputs = keras.layers.Conv2D(4, 1)(keras.layers.Conv2D(48, 3)(x))
    model = keras.Model(inputs, outputs)
    images = np.random.default_rng(0).random((4, 96, 96, 3), np.float32)
    quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=4, extra_bits=2))
    dqa.calibrate(quantized, images, batch_size=2, verbose=0)
    path = tmp_path / "model.tflite"
    export_tflite(quantized, path, mode="packed", samples=images)
    ((plan, _),) = pack.read_plans(path.read_bytes())
    assert sum(op.code == OpCode.WINOGRAD for op in plan.ops) >= 2
    run = pack.load_packed(path)
    run.allocate_tensors()
    run.set_tensor(run.get_input_details()[0]["index"], images[:1])
    run.invoke()
    ours = run.get_tensor(run.get_output_details()[0]["index"])
    theirs = quantized.predict(images[:1], verbose=0)
    noise = np.square(ours - theirs).sum() / np.square(theirs - theirs.mean()).sum()
    assert noise < 0.02


def test_weights_are_laid_out_position_by_position():
    weights = np.arange(16 * 16 * 4, dtype=np.int64).reshape(16, 4, 4, 4)
    flat = conv_layout((weights % 127).astype(np.int8)).reshape(1, 16, 1, 16, 4)
    np.testing.assert_array_equal(flat[0, 5, 0, 2], weights[2, 1, 1] % 127)
