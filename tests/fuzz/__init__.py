"""Fuzzing of the codec and of the server's front door, with a small corpus that every run tries.

``python -m tests.fuzz --seconds 60`` goes on from the corpus by itself; see `__main__`.
"""
