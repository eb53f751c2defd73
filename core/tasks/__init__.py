"""Sample, read, write, corrupt and clean few-shot task lists."""
