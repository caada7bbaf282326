"""Settings for all tests."""

import torch

# Tests run in two processes on two cores; more threads would only wait for each other.
torch.set_num_threads(1)
