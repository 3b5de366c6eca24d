"""`eight/` is for a process with 8 devices: the one that `test_eight.py` starts."""

import os

if os.environ.get("JAXNN_TEST_DEVICES") != "8":
    collect_ignore = ["eight"]
