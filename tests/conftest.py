"""Settings of all tests."""

import torch

# The networks here are small: more threads would only wait for each other.
torch.set_num_threads(1)
