"""The whole system on a virtual clock, driven by one number: faults of every kind, reproducibly.

Theory
------
The real server (`wsmonitor_server.app.Server` with its engine, stores and transports), real clients
(`wsmonitor.client`, its links, subscriptions and publications, with the WebSocket library that it uses) and
real publishers (`wsmonitor.publish`) run in one process and one thread. What is simulated is only what lies
beneath them: time, threads, the network and the disk.

============ ====================================================================================
module       holds
============ ====================================================================================
world        virtual time; processes, each with an event loop of its own, that can be killed or suspended
network      connections between processes: latency, partial delivery, stalls, loss at any byte
disk         stores that outlast their process: what a crash leaves, and what the loss of power takes away
redis_host   a Redis, on which several servers have the real `RedisStore` (node_disk); what it keeps
             (redis_data), the store's scripts in Lua (redis_scripts), what goes wrong with it
             (redis_faults), and what it was made to keep, as the oracle is told (ledger)
server_host  a computer that runs the server, and starts it again
actors       publishers, observers, operators: the real code, and what a user does with it
programs     programs with the publisher's SDK, and who delivers what a killed one has left
oracle       the invariants by name, checked at every step, over what was committed and told (lines)
plan         what happens in a run, drawn from the seed; happenings: how
run          one run, from the seed to the verdict, with its trace
faults       planted faults: changes of the real code that the simulation has to catch; node_faults: those
             of several servers
============ ====================================================================================

One seed gives one run, event by event: all randomness comes from it, and nothing waits for the real time.
``python -m tests.simulation --seeds 1..1000`` runs as many as asked; a failure prints its seed, and the
end of its trace, and ``--seed N --trace`` shows all of it.
"""
