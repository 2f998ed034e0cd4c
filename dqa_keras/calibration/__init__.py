"""From data to quantization parameters: statistics, ranges, ranking, bit allocation."""
