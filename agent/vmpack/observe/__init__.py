"""Reading the host and its VMs: one immutable snapshot per interval, nothing guessed."""
