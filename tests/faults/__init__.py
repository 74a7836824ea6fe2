"""What machines do to runs: kills, full disks, two runs at once."""
