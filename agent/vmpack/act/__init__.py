"""Carrying out decided actions on real VMs, each checked again right before."""
