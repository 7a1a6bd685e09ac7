"""GPUs, over a double of NVIDIA's library that the real nvidia-ml-py loads."""
