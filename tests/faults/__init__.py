"""Faults of real processes, real sockets and real files, and what became of the promises.

Here nothing is simulated: servers and producers are processes that are killed, links are network
interfaces that drop packets, disks are file systems that are full. The small forms are tests; the
same code with larger numbers is a tool that prints figures::

    python -m tests.faults --server 100 --producers 100 --half-open 50

========== ==========================================================
module     holds
========== ==========================================================
server     a server as a process of its own, which can be killed and started again
producer   a publishing program that keeps account of what was acknowledged
watching   observers that keep account of what they were told
account    what was lost, told twice, or went backwards; and what the killed server's file has
kills      kill -9 of the server, and of producers
links      half-open links: packets dropped between two network namespaces
isolation  many sessions, many observers, and every byte that they receive
disks      a disk that can be filled, and mounted read-only
leaks      the same over and over, and what is left of it (census, cycles, counted_server)
========== ==========================================================
"""
