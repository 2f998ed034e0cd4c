"""Bad days of the delegate: each names the node and the reason, and nothing crashes."""

import dataclasses
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from programs import Builder

from dqa_keras.export import load_packed
from dqa_keras.export.litert import flatbuffer
from dqa_keras.export.plan.encoding import encode
from dqa_keras.export.plan.ops import Window
from dqa_keras.export.plan.reference import Reference
from dqa_keras.export.plan.scheduling import schedule

_INPUT, _OUTPUT = (5, 4, 3), (5, 4, 8)


@pytest.fixture(scope="module")
def small():
    build = Builder(_INPUT)
    window = Window(3, 3, top=1, left=1)
    build.output(build.conv(build.input, build.codes(_OUTPUT), window))
    return schedule(build.program)


def write(path, plan, constants, constant_inputs=True, change=None):
    """A model of one op, made by hand; `change` gets its graph."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs = 3, [graph]
    model.buffers, graph.tensors = [schema.BufferT()], []

    def tensor(shape, kind, data=None):
        tensor = schema.TensorT()
        tensor.name = f"tensor_{len(graph.tensors)}".encode()
        tensor.shape, tensor.type, tensor.buffer = list(shape), kind, 0
        if data is not None:
            tensor.buffer = len(model.buffers)
            model.buffers.append(schema.BufferT())
            model.buffers[-1].data = np.frombuffer(data, np.uint8)
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    op, code = schema.OperatorT(), schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = b"DQA"
    model.operatorCodes = [code]
    image = tensor((1, *_INPUT), schema.TensorType.FLOAT32)
    behind = [
        tensor((len(data),), schema.TensorType.UINT8, data if constant_inputs else None)
        for data in (plan, constants)
    ]
    out = tensor((1, *_OUTPUT), schema.TensorType.FLOAT32)
    op.opcodeIndex, op.inputs, op.outputs = 0, [image, *behind], [out]
    graph.operators = [op]
    graph.inputs = [image] if constant_inputs else op.inputs
    graph.outputs = [out]
    if change is not None:
        change(graph)
    Path(path).write_bytes(flatbuffer.serialize(model))
    return path


def resealed(data):
    return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))


def test_a_good_day(small, tmp_path):
    plan, constants = small
    interpreter = load_packed(write(tmp_path / "m", encode(plan), constants))
    interpreter.allocate_tensors()
    x = np.random.default_rng(0).normal(size=_INPUT).astype(np.float32)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x[None])
    interpreter.invoke()
    ours = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
    (theirs,), _ = Reference(plan, constants)([x])
    np.testing.assert_array_equal(ours, theirs)


def prepare(path, resize=None):
    interpreter = load_packed(path)
    if resize:
        index = interpreter.get_input_details()[0]["index"]
        interpreter.resize_tensor_input(index, resize)
    interpreter.allocate_tensors()


def refused(path, match, resize=None):
    with pytest.raises((RuntimeError, ValueError), match=match):
        prepare(path, resize)


def test_a_damaged_plan(small, tmp_path):
    plan, constants = small
    data = bytearray(encode(plan))
    data[70] ^= 1
    path = write(tmp_path / "m", bytes(data), constants)
    refused(path, r"node 0: the plan is damaged: its checksum does not match")


def test_weights_of_the_wrong_size(small, tmp_path):
    plan, constants = small
    path = write(tmp_path / "m", encode(plan), constants[:-16])
    refused(path, rf"node 0: the weights must have {len(constants)} bytes. Received")


def test_a_plan_from_a_newer_version(small, tmp_path):
    plan, constants = small
    data = encode(plan)
    newer = resealed(data[:4] + struct.pack("<H", 999) + data[6:])
    path = write(tmp_path / "m", newer, constants)
    refused(path, r"node 0: .*Received: version 999. Upgrade dqa_keras")


def test_an_input_resized_to_another_shape(small, tmp_path):
    plan, constants = small
    path = write(tmp_path / "m", encode(plan), constants)
    refused(path, r"node 0: its plan is for one size.* must hold 60", (1, 9, 9, 3))


@pytest.mark.parametrize(
    "shape",
    [(1, 4, 5, 3), (1, 10, 2, 3), (1, 5, 12, 1), (1, 1, 20, 3), (1, 60), (5, 4, 3)],
)
def test_an_input_resized_to_another_shape_of_as_many_values(shape, small, tmp_path):
    plan, constants = small
    path = write(tmp_path / "m", encode(plan), constants)
    sizes = ", ".join(map(str, shape))
    match = rf"must hold 60 float32 values of shape \(1, 5, 4, 3\). .*\({sizes}\)"
    refused(path, match, shape)
    prepare(path, (1, *_INPUT))


def test_an_output_of_another_shape_of_as_many_values(small, tmp_path):
    def turned(graph):
        graph.tensors[-1].shape = [1, 4, 5, 8]

    plan, constants = small
    path = write(tmp_path / "m", encode(plan), constants, change=turned)
    refused(path, r"output tensor 3 must hold 160 .*\(1, 5, 4, 8\).*\(1, 4, 5, 8\)")


_FORKED = """
import os, signal, sys
import numpy as np
from dqa_keras.export import load_packed

path, threads = sys.argv[1], int(sys.argv[2])

def run(interpreter, value):
    index = interpreter.get_input_details()[0]["index"]
    interpreter.set_tensor(index, np.full((1, 5, 4, 3), value, np.float32))
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

interpreter = load_packed(path, num_threads=threads)
interpreter.allocate_tensors()
wanted = [run(interpreter, value).copy() for value in (1, 2)]

def child():
    signal.alarm(20)
    for _ in range(3):
        for value, output in zip((1, 2), wanted):
            np.testing.assert_array_equal(run(interpreter, value), output)

def forked(body):
    process = os.fork()
    if process == 0:
        try:
            body()
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    status = os.waitpid(process, 0)[1]
    assert status == 0, f"the child ended with {status}"

def child_of_a_child():
    child()
    forked(child)

forked(child)
forked(child_of_a_child)
def closed():
    signal.alarm(20)
    global interpreter
    del interpreter
forked(closed)
child()
print("as expected")
"""


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_forked_child_runs_on_threads_of_its_own(threads, small, tmp_path):
    plan, constants = small
    path = write(tmp_path / "m", encode(plan), constants)
    command = [sys.executable, "-c", _FORKED, str(path), str(threads)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert run.stdout == "as expected\n", run.stdout + run.stderr


def test_a_plan_that_is_no_constant(small, tmp_path):
    plan, constants = small
    path = write(tmp_path / "m", encode(plan), constants, constant_inputs=False)
    refused(path, r"node 0: its plan and weights must be constants")


@pytest.mark.parametrize("name", ["inputs", "outputs"])
def test_an_op_without_a_tensor(name, small, tmp_path):
    def left_out(graph):
        getattr(graph.operators[0], name)[0] = -1

    plan, constants = small
    path = write(tmp_path / "m", encode(plan), constants, change=left_out)
    refused(path, r"node 0: it needs every tensor. Received: number -1")


@pytest.mark.parametrize("name", ["inputs", "outputs"])
def test_more_tensors_than_its_plan_has(name, small, tmp_path):
    def doubled(graph):
        numbers = getattr(graph.operators[0], name)
        numbers.insert(0, numbers[0])

    plan, constants = small
    path = write(tmp_path / "m", encode(plan), constants, change=doubled)
    refused(path, rf"node 0: its plan has fewer {name}")


def test_an_output_that_is_a_constant(small, tmp_path):
    def constant(graph):
        op = graph.operators[0]
        tensor = graph.tensors[op.outputs[0]]
        tensor.buffer = graph.tensors[op.inputs[-1]].buffer

    plan, constants = small
    path = write(tmp_path / "m", encode(plan), constants, change=constant)
    with pytest.raises((RuntimeError, ValueError)):
        prepare(path)


def test_no_memory_for_the_arena(small, tmp_path):
    plan, constants = small
    large = dataclasses.replace(plan, arena=2**31)
    path = write(tmp_path / "m", encode(large), constants)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    room = pages * resource.getpagesize() + 2**30
    resource.setrlimit(resource.RLIMIT_AS, (room, limits[1]))
    try:
        refused(path, r"node 0: no memory for its arena")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
