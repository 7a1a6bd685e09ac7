"""Other ways of pinning vCPUs, each from its documented rule; replay/vcpu_policies.py finds them here."""
