"""The lab: tiny real guests under QEMU, with or without KVM, for the demo, the tests and the benchmarks."""
