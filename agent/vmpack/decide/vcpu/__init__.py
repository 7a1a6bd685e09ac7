"""Which pCPUs each vCPU may run on: demand, balance, the fewest changes, and holding still."""
