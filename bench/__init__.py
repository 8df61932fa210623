"""One scenario, many systems, the same machine: ``python -m bench``. Nothing else of the repository imports it."""
