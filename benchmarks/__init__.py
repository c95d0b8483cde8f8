"""What Swathe promises of speed and memory, measured. Each file is a script: `python -m benchmarks.throughput`."""
