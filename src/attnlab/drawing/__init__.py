"""Drawing of results: arrays in, arrays out; no files, display or global settings."""
