"""The 14 checks of the WebSocket flow review, end to end: a real server, real sockets, the product's clients.

One file per check, named after it; each test quotes the sentence of the pass criteria that it asserts.
"""
