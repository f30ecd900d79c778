"""What a run needs of the machine: errors, checkpoints, metrics, devices."""
