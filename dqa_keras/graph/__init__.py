"""Reads a Keras model and puts quantizers into it."""
