"""Settings of all tests."""

import os

import torch

# The networks here are small: more threads would only wait for each other. To test with more, name a number.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
