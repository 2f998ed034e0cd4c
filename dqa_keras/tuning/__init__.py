"""Changes weights and biases of a quantized model so that it loses less."""
