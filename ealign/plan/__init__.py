"""What would run: data, memory, FLOPs, transfers and time, before it does."""
