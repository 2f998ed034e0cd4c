"""From the ops of a `.tflite` to programs on packed activations."""
