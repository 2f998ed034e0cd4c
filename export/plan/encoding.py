"""A plan as bytes, which `FORMAT.md` describes, and as text."""

import struct
import zlib

from dqa_keras.codec.sizes import STORAGE_CLASSES
from dqa_keras.export.plan.ops import ADDENDS, BLOCK, OpCode, Window
from dqa_keras.export.plan.peak import peak_of
from dqa_keras.export.plan.records import (
    NONE,
    Buffer,
    Kind,
    Link,
    Op,
    Plan,
    Stage,
    Table,
    Type,
)

MAGIC = b"DQAG"
VERSION = 6

# Buffers that `describe` lists where the arena is fullest.
_PEAK_LINES = 5

_HEADER = struct.Struct("<4sHHIIIHHHHHH")
_BUFFER = struct.Struct("<4B4I2H5I")
_TABLE = struct.Struct("<4BII")
_OP = struct.Struct("<BBHHHHHBBBBhhIIIIIIII")
_LINK = struct.Struct("<HHI")
_STAGE = struct.Struct("<HHI")

# The last fields of an op, in their order.
_OFFSETS = (
    "weights", "multiplier", "bias", "low", "high", "power", "scratch", "shift",
)  # fmt: skip

_CODES = {int(code): code for code in OpCode}


class PlanError(ValueError):
    """A plan is damaged, or from a newer version."""


def encode(plan: Plan) -> bytes:
    """The bytes of a plan."""
    links = [link for op in plan.ops for link in op.links]
    parts = []
    for b in plan.buffers:
        head = (b.kind, b.type, b.zero, b.group // BLOCK, b.height, b.width, b.channels)
        tail = (b.rows, b.left, b.right, b.offset, b.size, b.table, b.slot)
        parts.append(_BUFFER.pack(*head, *tail, b.peak))
    for t in plan.tables:
        storage = STORAGE_CLASSES.index(t.storage)
        parts.append(
            _TABLE.pack(t.bits, t.extra_bits, t.signed, storage, t.channels, t.mask)
        )
    first = 0
    for op in plan.ops:
        w = op.window
        parts.append(
            _OP.pack(
                op.code, len(op.links), first, op.output, op.rows, w.height, w.width,
                *w.stride, *w.dilation, w.top, w.left,
                *(getattr(op, field) for field in _OFFSETS),
            )
        )  # fmt: skip
        first += len(op.links)
    parts.extend(_LINK.pack(n.buffer, n.addend, n.value) for n in links)
    parts.extend(_STAGE.pack(s.first, s.count, s.steps) for s in plan.stages)
    for op in plan.ops:
        name = op.name.encode()[:255]
        parts.append(bytes([len(name)]) + name)
    body = b"".join(parts)
    header = _HEADER.pack(
        MAGIC, VERSION, 0, _HEADER.size + len(body) + 4, plan.arena,
        plan.constants, len(plan.buffers), len(plan.tables), len(plan.ops),
        len(links), len(plan.stages), 0,
    )  # fmt: skip
    return header + body + struct.pack("<I", zlib.crc32(header + body))


def decode(data: bytes) -> Plan:
    """The plan of some bytes.

    Raises:
        PlanError: If the bytes are not a plan, damaged, or from a newer version.
    """
    if len(data) < _HEADER.size + 4 or data[:4] != MAGIC:
        raise PlanError(f"a plan begins with {MAGIC!r}. Received: {data[:4]!r}")
    _, version, _, size, *_ = _HEADER.unpack_from(data)
    if version != VERSION:
        raise PlanError(
            f"a plan's version must be {VERSION}. Received: {version}. Upgrade "
            "dqa_keras, or export the file again."
        )
    if size > len(data) or zlib.crc32(data[: size - 4]) != int.from_bytes(
        data[size - 4 : size], "little"
    ):
        raise PlanError("the plan is damaged: its checksum does not match")
    try:
        plan = _parsed(data)
        _check_references(plan)
        for op in plan.ops:
            _check_op(plan, op)
    except (struct.error, IndexError, ValueError) as error:
        raise PlanError(f"the plan is damaged: {error}") from error
    return plan


def _parsed(data: bytes) -> Plan:
    """The plan that bytes of the right checksum hold."""
    (
        _, _, _, _, arena, constants, buffer_count, table_count, op_count, link_count,
        stage_count, _,
    ) = _HEADER.unpack_from(data)  # fmt: skip
    at = _HEADER.size

    def read(record: struct.Struct) -> tuple:
        nonlocal at
        at += record.size
        return record.unpack_from(data, at - record.size)

    buffers = []
    for _ in range(buffer_count):
        kind, type_, zero, group, height, width, channels, *rest = read(_BUFFER)
        rows, left, right, offset, size, table, slot, peak = rest
        buffers.append(
            Buffer(
                Kind(kind), Type(type_), height, width, channels, zero, peak, rows,
                left, right, offset, size, table, slot, group * BLOCK,
            )
        )  # fmt: skip
    tables = []
    for _ in range(table_count):
        bits, extra, signed, storage, channels, mask = read(_TABLE)
        tables.append(
            Table(bits, extra, signed, channels, mask, STORAGE_CLASSES[storage])
        )
    records = [read(_OP) for _ in range(op_count)]
    links = [
        Link(buffer, value, bool(addend))
        for buffer, addend, value in (read(_LINK) for _ in range(link_count))
    ]
    stages = [Stage(*read(_STAGE)) for _ in range(stage_count)]
    ops = []
    for record in records:
        code, count, first, output, rows, kh, kw, sy, sx, dy, dx, top, left = record[
            :13
        ]
        length = data[at]
        name = data[at + 1 : at + 1 + length].decode(errors="replace")
        at += 1 + length
        if code not in _CODES:
            raise ValueError(f"an op's code must be in 0..{max(_CODES)}, not {code}")
        window = Window(kh, kw, (sy, sx), (dy, dx), top, left)
        reads = links[first : first + count]
        op = Op(_CODES[code], output, reads, window, rows=rows, name=name)
        for field, value in zip(_OFFSETS, record[13:], strict=True):
            setattr(op, field, value)
        ops.append(op)
    return Plan(buffers, tables, ops, stages, arena, constants)


def _check_references(plan: Plan) -> None:
    """Raises IndexError where a plan points past the end of one of its lists."""
    buffers, tables = len(plan.buffers), len(plan.tables)
    for op in plan.ops:
        for number in (op.output, *(link.buffer for link in op.links)):
            if number >= buffers:
                raise IndexError(f"buffer {number} of {buffers}")
    for buffer in plan.buffers:
        if buffer.table >= tables and buffer.table != NONE:
            raise IndexError(f"table {buffer.table} of {tables}")


def _check_op(plan: Plan, op: Op) -> None:
    """Raises ValueError where an op breaks its `OpRule`."""
    rule, name = op.code.rule, op.code.name
    operands = [link for link in op.links if not link.addend]
    addends = len(op.links) - len(operands)
    fewest, most = rule.operands
    if not fewest <= len(operands) <= most:
        raise ValueError(
            f"{name} reads {fewest}..{most} operands. Received: {len(operands)}"
        )
    if addends > (ADDENDS if op.code.adds else 0):
        raise ValueError(f"{name} has too many addends. Received: {addends}")
    if not rule.taps and op.window.height * op.window.width != 1:
        raise ValueError(f"{name} has a window of one tap")
    if operands:
        inputs = plan.buffers[operands[0].buffer].channels
        outputs = plan.buffers[op.output].channels
        size = rule.weights.size(op.window, inputs, outputs)
        if size and op.weights + size > plan.constants:
            raise ValueError(f"the weights of {name} lie outside the constants")


def describe(plan: Plan) -> str:
    """A plan as text: its stages, what each op reads and writes, and the bytes."""

    def buffer(number: int) -> str:
        b = plan.buffers[number]
        size = f"{b.height}x{b.width}x{b.channels}"
        if b.kind == Kind.LINE_BUFFER:
            groups = f", {b.group} channels at once" if b.group else ""
            kind = b.type.name.lower()
            return f"line buffer {number} ({b.rows} of {size} {kind}{groups})"
        if b.kind != Kind.STORED:
            return f"{b.kind.name.lower()} {number} ({size})"
        bits = ""
        if b.table != NONE:
            table = plan.tables[b.table]
            bits = f", {table.bits} + {table.extra_bits} bits"
            if table.storage != "raw":
                bits += f", {table.storage} coded"
        return f"stored {number} ({size}{bits}, {b.size} B at {b.offset})"

    peak = peak_of(plan)
    lines = [
        f"arena {plan.arena} B, constants {plan.constants} B",
        f"peak in stage {peak.stage}, {peak.size} B:",
    ]
    for held in peak.held[:_PEAK_LINES]:
        text = f"  {held.size} B {buffer(held.buffer)}  {held.layer}"
        lines.append(text.rstrip())
    if peak.room:
        lines.append(f"  {peak.room} B for rows, tiles or groups at work")
    for number, stage in enumerate(plan.stages):
        ops = plan.ops[stage.first : stage.first + stage.count]
        line_buffers = sum(
            plan.buffers[op.output].size
            for op in ops
            if plan.buffers[op.output].kind == Kind.LINE_BUFFER
        )
        lines.append(
            f"stage {number}: {stage.steps} strips, line buffers {line_buffers} B"
        )
        for op in ops:
            w = op.window
            shape = f" {w.height}x{w.width}" if w.height * w.width > 1 else ""
            stride = f" by {w.stride[0]}x{w.stride[1]}" if max(w.stride) > 1 else ""
            reads = " + ".join(buffer(link.buffer) for link in op.links)
            lines.append(
                f"  {op.code.name.lower()}{shape}{stride}: {reads} -> "
                f"{buffer(op.output)}  {op.name}".rstrip()
            )
    return "\n".join(lines)
