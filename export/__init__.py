"""Exports calibrated Keras models to `.tflite` and reads the metadata back.

>>> from dqa_keras.export import export_tflite, load_packed, read_metadata
"""

from dqa_keras.export.android_project import export_android
from dqa_keras.export.metadata import Metadata, MetadataError, read_metadata
from dqa_keras.export.native_runtime import RuntimeMissingError
from dqa_keras.export.packed import PackedReport, RegionReport, load_packed
from dqa_keras.export.tflite import ExportReport, export_tflite
from dqa_keras.export.verification import VerificationError

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
