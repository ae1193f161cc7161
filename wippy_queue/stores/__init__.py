"""Key-value stores; `wippy_queue/store.py` is the contract that they keep."""
