"""What a quantized model takes and loses: bits, memory, accuracy."""
