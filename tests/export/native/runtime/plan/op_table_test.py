"""The C++ table of ops is the Python one, row by row."""

import re
from pathlib import Path

import pytest

from dqa_keras.export.plan.ops import OpCode, Weights, Window

NATIVE = Path(__file__).parents[5] / "export" / "native"
ROW = re.compile(
    r"^  OP\((\d+), (\w+), (\w+), (\w+), k(\w+), (\w+), k(\w+), k(\w+)\)", re.MULTILINE
)
TABLE = (NATIVE / "runtime" / "plan" / "op_table.h").read_text()
# A row that is too long for a line goes on in the next.
ROWS = ROW.findall(re.sub(r" *\\\n {5,}", " ", TABLE))

OPERANDS = {"None": (0, 0), "One": (1, 1), "Two": (2, 2), "Many": (1, 255)}
LAYOUTS = {
    "None": Weights.NONE,
    "Channels": Weights.NONE,  # an array of numbers, like those of an epilogue
    "Dense": Weights.CONV,
    "Depthwise": Weights.DEPTHWISE,
    "Tiles": Weights.TILES,
    "Knots": Weights.KNOTS,
    "Sources": Weights.CHANNELS,
}
# Rows of an operand that rows 6 to 9 of the output need, with strides of 2.
WINDOW = Window(3, 3, (2, 2), top=1, left=1)
ROWS_READ = {"Same": (6, 9), "Window": (11, 18), "Enlarged": (3, 5), "Between": (2, 5)}


def test_both_tables_have_the_same_ops():
    ours = [(int(code), code.name) for code in OpCode]
    assert [(int(row[0]), row[3]) for row in ROWS] == ours


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[3])
def test_both_tables_say_the_same(row):
    code, function, name, upper, operands, requantizes, rows, weights = row
    op = OpCode(int(code))
    assert function.upper() == upper == op.name
    assert name.upper() == upper.replace("_", "")
    assert OPERANDS[operands] == op.rule.operands
    assert (requantizes == "true") == op.adds
    assert ROWS_READ[rows] == op.rule.rows(WINDOW, 6, 9)
    assert LAYOUTS[weights] == op.rule.weights
