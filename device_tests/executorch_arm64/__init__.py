"""Programs for 64-bit Arm phones, run by ExecuTorch's own aarch64 libraries under emulation."""
