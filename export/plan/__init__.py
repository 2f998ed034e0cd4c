"""From a program to a plan: what the packed runtime reads."""
