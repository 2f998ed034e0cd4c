"""Exports calibrated Keras models to `.tflite` and reads the metadata back.

>>> from dqa_keras.export import export_tflite, load_packed, read_metadata
"""

from dqa_keras.export.android import export_android
from dqa_keras.export.litert.metadata import Metadata, MetadataError, read_metadata
from dqa_keras.export.litert.verification import VerificationError
from dqa_keras.export.packed.pack import load_packed
from dqa_keras.export.packed.report import PackedReport, RegionReport
from dqa_keras.export.plan.runtime import RuntimeMissingError
from dqa_keras.export.tflite import ExportReport, export_tflite

__all__ = [
    "ExportReport",
    "Metadata",
    "MetadataError",
    "PackedReport",
    "RegionReport",
    "RuntimeMissingError",
    "VerificationError",
    "export_android",
    "export_tflite",
    "load_packed",
    "read_metadata",
]
