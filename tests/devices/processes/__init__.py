"""Programs for several processes: what `test_processes.py` starts."""
