"""LiteRT's files: the FlatBuffer, metadata, verification, folding of scales."""
