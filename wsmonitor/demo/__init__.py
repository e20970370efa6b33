"""The demonstration: real work, published as a session.

``python -m wsmonitor.demo`` analyses the source of Python's own standard library. Nothing in it is made up:
files that do not parse give errors, files that are not UTF-8 give retries, large results are truncated.
"""
