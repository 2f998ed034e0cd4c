"""How long ops take, roughly: for choosing between plans of one program.

The unit is about a cycle of an x86 core. Figures were fitted to measured plans of
MobileNets and ResNets with AVX2.
"""

from dqa_keras.export.plan.ops import OpCode, Window

# A call of an op, whatever it computes.
CALL = 40.0
# A byte of weights that an op reads once a call.
WEIGHT_BYTE = 1 / 48
# A code that is packed or unpacked. More than that takes: so the plans chosen for
# MobileNetV2 and EfficientNet-Lite0 execute at most 5 % more on Arm than those without
# packed rows.
PACKED_CODE = 5.0
# A byte that is copied within the nearest cache.
COPIED_BYTE = 1 / 16


def row_time(
    code: OpCode, window: Window, width: int, inputs: int, outputs: int
) -> float:
    """The time that a row of `width` pixels takes.

    Args:
        code: `OpCode`.
        window: `Window`.
        width: Integer. Pixels of the row that is written.
        inputs: Integer. Channels that are read.
        outputs: Integer. Channels that are written.

    Returns:
        Float.
    """
    values, taps = float(width * outputs), window.height * window.width
    if code == OpCode.CONV:
        return values * (taps * inputs / 64 + 0.5)
    if code == OpCode.WINOGRAD:
        return values * (4 * inputs / 64 + 1.5) + inputs
    if code in (OpCode.DEPTHWISE, OpCode.AVERAGE):
        return values * (taps / 16 + 0.5)
    if code in (OpCode.LOAD, OpCode.STORE):
        return values * 0.5
    return values * 0.3
