"""The program of one `DQA` op: what the runtime does, in which order, and where.

A plan is data. The exporter writes it, `export/native/runtime` executes it, and
`dqa_keras.export.plan.reference` says in NumPy what must come out. `FORMAT.md`
describes the bytes.
"""

import dataclasses
import enum
import struct
import zlib

MAGIC = b"DQAG"
VERSION = 3

# No offset: the op has no such array, the buffer no such table.
NONE = 0xFFFFFFFF

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


class PlanError(ValueError):
    """A plan is damaged, or from a newer version."""


class Kind(enum.IntEnum):
    """Where a buffer lives."""

    RING = 0  # the last rows of a tensor, unpacked
    STORED = 1  # a whole tensor, packed
    INPUT = 2  # the op's input, float32
    OUTPUT = 3  # the op's output, float32


class Type(enum.IntEnum):
    """What a buffer's values are."""

    CODES = 0  # uint8, `zero` stands for 0
    WIDE = 1  # int16
    FLOAT = 2  # float32


class Storage(enum.IntEnum):
    """What is Huffman-coded of a stored buffer: as in a blob."""

    RAW = 0
    RESIDUAL = 1
    ALL = 2


class Code(enum.IntEnum):
    """What an op computes."""

    READ = 0  # float input -> wide codes, scaled by the input's largest magnitude
    LOAD = 1  # stored rows -> ring
    STORE = 2  # ring -> stored rows
    CONV = 3
    DEPTHWISE = 4
    COMBINE = 5  # a sum of scaled codes
    AVERAGE = 6
    MAXIMUM = 7
    NEAREST = 8
    BILINEAR = 9
    JOIN = 10  # channels side by side
    DEPTH_TO_SPACE = 11  # channels become pixels
    WINOGRAD = 12  # CONV of 3x3 taps in tiles of 2x2 outputs


@dataclasses.dataclass
class Buffer:
    """Memory for rows of `width` pixels of `channels` values.

    Args:
        kind: `Kind`.
        type: `Type`.
        height: Integer. Rows of the whole tensor.
        width: Integer. Pixels of a row.
        channels: Integer. Values of a pixel.
        zero: Integer. The code that stands for 0 (`CODES` only). Defaults to `0`.
        peak: Integer. Largest code (`CODES`) or magnitude of one (`WIDE`).
        rows: Integer. Rows a ring holds. Defaults to `0`.
        left: Integer. Pixels of zeros in front of each row of a ring. Defaults to `0`.
        right: Integer. Pixels of zeros behind. Defaults to `0`.
        zero_row: Boolean. Whether a ring has one more row, of zeros, for taps above
            and below the tensor. Defaults to `False`.
        offset: Integer. Where the buffer starts in the arena. Defaults to `0`.
        size: Integer. Bytes in the arena. Defaults to `0`.
        table: Integer. How a stored buffer is packed, or `NONE` for plain bytes.
        slot: Integer. The input whose magnitude scales the values, or `NONE`.
    """

    kind: Kind
    type: Type
    height: int
    width: int
    channels: int
    zero: int = 0
    peak: int = 0
    rows: int = 0
    left: int = 0
    right: int = 0
    zero_row: bool = False
    offset: int = 0
    size: int = 0
    table: int = NONE
    slot: int = NONE

    @property
    def pixel_bytes(self) -> int:
        """Bytes from a pixel of a ring to the next: four values are read at once."""
        return -(-self.channels // 4) * 4 * (2 if self.type == Type.WIDE else 1)

    @property
    def row_bytes(self) -> int:
        """Bytes from a row of a ring to the next."""
        return (self.left + self.width + self.right) * self.pixel_bytes


@dataclasses.dataclass
class Table:
    """How stored codes are packed: as in `DQA_RESIDUAL`, without the codewords.

    Args:
        bits: Integer. Bits n of a base code.
        extra_bits: Integer. Bits m of a residual.
        signed: Boolean. Whether codes are signed.
        channels: Integer.
        mask: Integer. Offset of the mask in the constants: a byte a channel. Unless
            `storage` is raw a layer's name follows, a byte of length in front: the
            codewords are its, from the metadata `DQA_RESIDUAL`.
        storage: `Storage`. Defaults to raw.
    """

    bits: int
    extra_bits: int
    signed: bool
    channels: int
    mask: int
    storage: Storage = Storage.RAW


@dataclasses.dataclass
class Window:
    """Which inputs an output sees: `y * stride - top + tap * dilation`, and so for x.

    Args:
        height: Integer. Taps, downwards. Defaults to `1`.
        width: Integer. Taps, sideways. Defaults to `1`.
        stride: Pair of integers, down and sideways. NEAREST, BILINEAR and
            DEPTH_TO_SPACE enlarge by it. Defaults to `(1, 1)`.
        dilation: Pair of integers. Defaults to `(1, 1)`.
        top: Integer. Rows of zeros above. Defaults to `0`.
        left: Integer. Columns of zeros on the left. Defaults to `0`.
    """

    height: int = 1
    width: int = 1
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    top: int = 0
    left: int = 0


@dataclasses.dataclass
class Link:
    """A buffer that an op reads.

    Args:
        buffer: Integer. Its number.
        value: Integer. For an operand of JOIN the first channel it fills; for an
            addend the offset of its scales in the constants; otherwise 0.
        addend: Boolean. Whether it is added behind the sum. Defaults to `False`.
    """

    buffer: int
    value: int = 0
    addend: bool = False


@dataclasses.dataclass
class Op:
    """One instruction.

    Sums become values in float32, one operation after the other, with arrays of one
    number for each output channel:

        v = float(sum) * multiplier          AVERAGE: float(sum) * (1 / taps) first
        v = v + bias
        v = v + float(code - zero) * scale   for each addend
        v = min(max(v, low), high)
        code = rint(v) * power + zero        half to even; floats are written unrounded

    Args:
        code: `Code`.
        output: Integer. The buffer it writes.
        links: List of `Link`. The buffers it reads, operands first.
        window: `Window`.
        weights: Integer. Offset of the weights; READ: of factors to the input.
        multiplier: Integer. Offset of the array, like the next four, or `NONE`. READ:
            of summands to the scaled input.
        bias: Integer.
        low: Integer.
        high: Integer.
        power: Integer.
        scratch: Integer. Where in the arena an op with a `slot` keeps its scales.
        shift: Integer. BILINEAR: bits dropped from the weighted sum. READ: largest
            code.
        name: String, for people.
    """

    code: Code
    output: int
    links: list[Link]
    window: Window = dataclasses.field(default_factory=Window)
    weights: int = NONE
    multiplier: int = NONE
    bias: int = NONE
    low: int = NONE
    high: int = NONE
    power: int = NONE
    scratch: int = NONE
    shift: int = 0
    name: str = ""


@dataclasses.dataclass
class Stage:
    """Ops that run together, strip by strip.

    Args:
        first: Integer. Number of the first op.
        count: Integer. Ops.
        steps: Integer. Strips.
    """

    first: int
    count: int
    steps: int


@dataclasses.dataclass
class Plan:
    """Everything that a `DQA` op does.

    Args:
        buffers: List of `Buffer`. Inputs and outputs in the op's order.
        tables: List of `Table`.
        ops: List of `Op`.
        stages: List of `Stage`, which cover the ops in order.
        arena: Integer. Bytes of memory it needs besides inputs and outputs.
        constants: Integer. Bytes of weights and arrays.
    """

    buffers: list[Buffer]
    tables: list[Table]
    ops: list[Op]
    stages: list[Stage]
    arena: int
    constants: int

    def encode(self) -> bytes:
        """The bytes that `FORMAT.md` describes."""
        links = [link for op in self.ops for link in op.links]
        parts = []
        for b in self.buffers:
            head = (b.kind, b.type, b.zero, b.zero_row, b.height, b.width, b.channels)
            tail = (b.rows, b.left, b.right, b.offset, b.size, b.table, b.slot)
            parts.append(_BUFFER.pack(*head, *tail, b.peak))
        for t in self.tables:
            parts.append(
                _TABLE.pack(
                    t.bits, t.extra_bits, t.signed, t.storage, t.channels, t.mask
                )
            )
        first = 0
        for op in self.ops:
            w = op.window
            parts.append(
                _OP.pack(
                    op.code, len(op.links), first, op.output, 0, w.height, w.width,
                    *w.stride, *w.dilation, w.top, w.left, op.weights, op.multiplier,
                    op.bias, op.low, op.high, op.power, op.scratch, op.shift,
                )
            )  # fmt: skip
            first += len(op.links)
        parts.extend(_LINK.pack(n.buffer, n.addend, n.value) for n in links)
        parts.extend(_STAGE.pack(s.first, s.count, s.steps) for s in self.stages)
        for op in self.ops:
            name = op.name.encode()[:255]
            parts.append(bytes([len(name)]) + name)
        body = b"".join(parts)
        header = _HEADER.pack(
            MAGIC, VERSION, 0, _HEADER.size + len(body) + 4, self.arena,
            self.constants, len(self.buffers), len(self.tables), len(self.ops),
            len(links), len(self.stages), 0,
        )  # fmt: skip
        return header + body + struct.pack("<I", zlib.crc32(header + body))


def decode(data: bytes) -> Plan:
    """The inverse of `Plan.encode`.

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
    except (struct.error, IndexError, ValueError) as error:
        raise PlanError(f"the plan is damaged: {error}") from error
    return plan


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


def _parsed(data: bytes) -> Plan:
    """The plan that bytes of the right checksum hold."""
    (
        _, _, _, _, arena, constants, buffer_count, table_count, op_count, link_count,
        stage_count, _,
    ) = _HEADER.unpack_from(data)  # fmt: skip
    at = _HEADER.size

    def take(record: struct.Struct) -> tuple:
        nonlocal at
        at += record.size
        return record.unpack_from(data, at - record.size)

    buffers = []
    for _ in range(buffer_count):
        kind, type_, zero, zero_row, *rest = take(_BUFFER)
        (
            height,
            width,
            channels,
            rows,
            left,
            right,
            offset,
            bytes_,
            table,
            slot,
            peak,
        ) = rest
        buffers.append(
            Buffer(
                Kind(kind), Type(type_), height, width, channels, zero, peak, rows,
                left, right, bool(zero_row), offset, bytes_, table, slot,
            )
        )  # fmt: skip
    tables = []
    for _ in range(table_count):
        bits, extra, signed, storage, channels, mask = take(_TABLE)
        tables.append(
            Table(bits, extra, bool(signed), channels, mask, Storage(storage))
        )
    records = [take(_OP) for _ in range(op_count)]
    links = [
        Link(buffer, value, bool(addend))
        for buffer, addend, value in (take(_LINK) for _ in range(link_count))
    ]
    stages = [Stage(*take(_STAGE)) for _ in range(stage_count)]
    ops = []
    for record in records:
        code, count, first, output, _, kh, kw, sy, sx, dy, dx, top, left = record[:13]
        length = data[at]
        name = data[at + 1 : at + 1 + length].decode(errors="replace")
        at += 1 + length
        window = Window(kh, kw, (sy, sx), (dy, dx), top, left)
        op = Op(Code(code), output, links[first : first + count], window, name=name)
        for field, value in zip(_OFFSETS, record[13:], strict=True):
            setattr(op, field, value)
        ops.append(op)
    return Plan(buffers, tables, ops, stages, arena, constants)


def describe(plan: Plan) -> str:
    """A plan as text: its stages, what each op reads and writes, and the bytes."""

    def buffer(number: int) -> str:
        b = plan.buffers[number]
        size = f"{b.height}x{b.width}x{b.channels}"
        if b.kind == Kind.RING:
            return f"ring {number} ({b.rows} of {size} {b.type.name.lower()})"
        if b.kind != Kind.STORED:
            return f"{b.kind.name.lower()} {number} ({size})"
        bits = ""
        if b.table != NONE:
            table = plan.tables[b.table]
            bits = f", {table.bits} + {table.extra_bits} bits"
            if table.storage != Storage.RAW:
                bits += f", {table.storage.name.lower()} coded"
        return f"stored {number} ({size}{bits}, {b.size} B at {b.offset})"

    lines = [f"arena {plan.arena} B, constants {plan.constants} B"]
    for number, stage in enumerate(plan.stages):
        ops = plan.ops[stage.first : stage.first + stage.count]
        rings = sum(
            plan.buffers[op.output].size
            for op in ops
            if plan.buffers[op.output].kind == Kind.RING
        )
        lines.append(f"stage {number}: {stage.steps} strips, line buffers {rings} B")
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
