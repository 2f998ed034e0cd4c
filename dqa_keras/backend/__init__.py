"""The only place that asks which Keras backend runs."""
