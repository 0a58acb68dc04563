"""Pictures of what a network saw and said: arrays in, arrays out.

Text, charts and masks are drawn by matplotlib and torchvision. Nothing here writes a file, needs a display or
changes matplotlib's settings for others.
"""
