"""attnlab: what does this attention module do for my CNN, and at what cost?"""

__version__ = "0.1.0"
