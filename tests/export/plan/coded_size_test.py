"""Huffman-coded skips: the same codes in less memory, whatever the data are."""

import dataclasses

import numpy as np
import pytest
from programs import Builder, check
from skips import SKIP, calibrated, forced, skipping

from dqa_keras.export import export_tflite, load_packed
from dqa_keras.export.litert import flatbuffer, residual_table
from dqa_keras.export.packed import pack
from dqa_keras.export.plan.coded_size import coded_bytes, row_bound, storage_class
from dqa_keras.export.plan.encoding import decode, describe, encode
from dqa_keras.export.plan.records import NONE, Kind
from dqa_keras.export.plan.runtime import NativeRuntime, RuntimeFailure
from dqa_keras.export.plan.scheduling import schedule

# Measuring what is covered takes longer than the tests themselves.
pytestmark = pytest.mark.no_cover


def coded_buffers(plan):
    return [
        b
        for b in plan.buffers
        if b.table != NONE and plan.tables[b.table].storage != "raw"
    ]


@pytest.mark.parametrize("storage", ["residual", "all"])
@pytest.mark.parametrize("codes", [(4, 2, False), (1, 4, True), (6, 0, False)])
def test_coded_skips_change_no_bit(codes, storage):
    program = skipping((21, 19, 20), *codes)
    tables = calibrated(program)
    plan, spilled = check(program, 0, forced(program, storage), tables)
    (skip,) = coded_buffers(plan)
    assert plan.tables[skip.table].storage == storage
    assert not any(spilled)


def test_skips_are_coded_where_that_saves_memory():
    program = skipping((96, 92, 32))
    tables = calibrated(program)
    plans = [schedule(program, coded) for coded in (False, True)]
    x = np.random.default_rng(0).normal(size=program.inputs[0])
    runs = [NativeRuntime(encode(p), data, tables=tables) for p, data in plans]
    raw, coded = (run([x])[0] for run in runs)
    np.testing.assert_array_equal(coded, raw)
    assert coded_buffers(plans[1][0])
    assert runs[1].arena_bytes < runs[0].arena_bytes
    assert runs[1].spilled_bytes == 0
    # What the codec needs for a row is more than coding saves here.
    small = skipping((21, 19, 20))
    calibrated(small)
    assert schedule(small, True) == schedule(small)


def squeezed(share):
    """A plan that expects codes to take a share of the bits that they take."""
    program = skipping((21, 19, 20))
    tables = calibrated(program)
    packing = program.tensors[SKIP].packing
    packing.coded_bits = tuple(share * bits for bits in packing.coded_bits)
    plan, spilled = check(program, 0, forced(program), tables)
    (skip,) = coded_buffers(plan)
    return skip.size, spilled


def test_rows_that_find_no_room_are_kept_elsewhere():
    room, spilled = squeezed(0.0)
    assert min(spilled) > room


def test_some_rows_find_room():
    room, spilled = squeezed(0.8)
    assert 0 < min(spilled) <= max(spilled) < room / 2


@pytest.mark.parametrize("storage", ["residual", "all"])
def test_the_class_that_takes_least_memory(storage):
    tensor = Builder((8, 40, 64)).codes((8, 40, 64))
    tensor.packing.layer = "a"
    tensor.packing.mask[:] = True
    tensor.packing.coded_bits = (4.0 if storage == "residual" else 3.0, 1.2)
    assert storage_class(tensor) == storage
    assert coded_bytes(tensor, storage) < coded_bytes(tensor, "raw")
    tensor.packing.coded_bits = (4.0, 2.0)
    assert storage_class(tensor) == "raw"


@pytest.mark.parametrize("storage", ["residual", "all"])
def test_room_never_exceeds_the_worst_case(storage):
    tensor = Builder((8, 40, 64)).codes((8, 40, 64))
    tensor.packing.coded_bits = (11.0, 11.0)
    bound = 8 * row_bound(tensor, storage)
    assert coded_bytes(tensor, storage) == bound + 8 * tensor.shape[0]


def test_plans_say_what_is_coded():
    program = skipping((21, 19, 20))
    calibrated(program)
    plan, _ = forced(program)
    assert decode(encode(plan)) == plan
    assert "4 + 2 bits, all coded" in describe(plan)


def refused(plan, constants, tables, match):
    with pytest.raises(RuntimeFailure, match=match):
        NativeRuntime(encode(plan), constants, tables=tables)


def test_codewords_come_from_the_metadata_by_name():
    program = skipping((21, 19, 20))
    tables = calibrated(program)
    plan, constants = forced(program)
    layers = residual_table.decode(tables)
    (table,) = [t for t in plan.tables if t.storage != "raw"]
    at = table.mask + table.channels
    name = constants[at + 1 : at + 1 + constants[at]].decode()
    refused(plan, constants, b"", f"layer {name}: the model has no metadata")
    others = residual_table.encode([t for t in layers if t.name != name])
    refused(plan, constants, others, f"layer {name}: .* has no such layer")
    wrong = [
        dataclasses.replace(t, mask=~t.mask) if t.name == name else t for t in layers
    ]
    wrong = residual_table.encode(wrong)
    refused(plan, constants, wrong, f"layer {name}: .* describes another")
    refused(plan, constants, tables[:-1], "bytes")


def test_a_hostile_coded_buffer_is_refused_or_does_no_harm():
    program = skipping((21, 19, 20))
    tables = calibrated(program)
    plan, constants = forced(program)
    (skip,) = coded_buffers(plan)
    number = plan.buffers.index(skip)
    x = np.zeros(program.inputs[0], np.float32)

    def changed(**fields):
        buffers = list(plan.buffers)
        buffers[number] = dataclasses.replace(skip, **fields)
        return dataclasses.replace(plan, buffers=buffers)

    directory = 8 * skip.height
    for size in (0, 1, directory, 2**31):
        refused(changed(size=size), constants, tables, f"buffer {number}")
    no_scratch = dataclasses.replace(plan, arena=64)
    refused(no_scratch, constants, tables, "no room for a row")
    outside = changed(offset=plan.arena - 64)
    refused(outside, constants, tables, "outside its arena")
    tight = changed(size=directory + 1)
    assert NativeRuntime(encode(tight), constants, tables=tables)([x])
    # Line buffers of the stage that it waits for overwrite it.
    waited = plan.stages[1]
    line_buffers = [
        plan.buffers[op.output]
        for op in plan.ops[waited.first : waited.first + waited.count]
        if plan.buffers[op.output].kind == Kind.LINE_BUFFER
    ]
    lost = changed(
        offset=min(line_buffer.offset for line_buffer in line_buffers),
        size=directory + 1,
    )
    run = NativeRuntime(encode(lost), constants, tables=tables)
    with pytest.raises(RuntimeFailure, match=r"overwritten|truncated"):
        run([x])


def outputs(path, images, threads=1):
    interpreter = load_packed(path, num_threads=threads)
    interpreter.allocate_tensors()
    outputs = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        index = interpreter.get_output_details()[0]["index"]
        outputs.append(interpreter.get_tensor(index))
    return np.concatenate(outputs)


@pytest.mark.parametrize("threads", [1, 2])
def test_litert_computes_the_same(coded_skip, threads):
    folder, images = coded_skip
    # The last one is nothing like what calibration saw.
    noise = np.sign(images[0]) * np.logspace(-3, 3, 96).astype(np.float32)[:, None]
    images = np.concatenate([images, noise[None]])
    np.testing.assert_array_equal(
        outputs(folder / "coded", images, threads), outputs(folder / "raw", images)
    )


def test_a_file_without_its_tables_is_refused(coded_skip, tmp_path):
    folder, _ = coded_skip
    data = (folder / "coded").read_bytes()
    (plan,) = [plan for plan, _ in pack.read_plans(data)]
    assert coded_buffers(plan)
    model = flatbuffer.parse(data)
    model.metadata = [
        entry
        for entry in model.metadata
        if bytes(entry.name) != residual_table.NAME.encode()
    ]
    (tmp_path / "m").write_bytes(flatbuffer.serialize(model))
    with pytest.raises(
        (RuntimeError, ValueError), match=r"node \d+: .*no metadata DQA"
    ):
        load_packed(tmp_path / "m").allocate_tensors()


def test_coded_skips_need_a_packed_export(quantized_cnn, tmp_path):
    with pytest.raises(ValueError, match=r"skips='coded' needs mode='packed'"):
        export_tflite(quantized_cnn, tmp_path / "m", skips="coded")
