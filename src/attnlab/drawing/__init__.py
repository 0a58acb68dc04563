"""Pictures of what a network saw and said: arrays in, arrays out; no file, display or global setting."""
