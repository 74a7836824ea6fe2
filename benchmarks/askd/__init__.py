"""Does ASKD work? The same student trained in every way, on real speech; see `python -m benchmarks.askd --help`."""
