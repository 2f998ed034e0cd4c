"""The version of the package, written into every exported file."""

__version__ = "0.1.0"
