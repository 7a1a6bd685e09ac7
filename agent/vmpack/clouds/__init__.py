"""Clouds: whoever places VMs on hosts, behind one small protocol."""
