"""The shared vocabulary of server and clients. Pure: no clock, no loop, no socket, no randomness.

========== ==========================================================
module     holds
========== ==========================================================
ids        what ids may contain; topics
states     the state machines, as tables
entities   session, chain, step, command … as frozen records
changes    what producers publish
messages   the two unions of messages
codec      bytes to messages and back
digest     the canonical encoding, and the digest over a state
reducer    `SessionState`: applies events
access     claims, roles, session patterns
discovery  the local server's discovery file
errors     every exception, and the catalogue of error codes
close_codes, defaults
========== ==========================================================
"""
