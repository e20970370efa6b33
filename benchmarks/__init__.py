"""Speed and memory, measured: ``python -m benchmarks`` lists what there is and runs it.

Nothing here is a test: figures on a shared two-core machine drift, so each run states the machine,
the date and its spread, and what matters is compared within one run.
"""
