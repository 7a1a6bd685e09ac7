"""What OpenNebula's VMM driver does on a node beside the stock actions."""
