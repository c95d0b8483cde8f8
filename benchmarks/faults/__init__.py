"""What can go wrong, done by the hundred: `python -m benchmarks.faults`. Each part is a module of its own."""
