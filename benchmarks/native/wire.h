/* Connections: they connect, go through their script, and tell of deliveries. */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include "histogram.h"
#include "script.h"

/* A delivery is known by "bench:", 19 digits of ns (CLOCK_MONOTONIC), ":", 10 digits of number, ":". */
enum { STAMP_LENGTH = 6 + 19 + 1 + 10 + 1 };
#define NOT_YET UINT64_MAX

enum state { GONE, CONNECTING, UPGRADING, STEPPING, LIVE };

struct connection {
    int fd, index, armed, muted;
    enum role role;
    enum state state;
    in_port_t port;
    int step, waited; /* the step that is waited for, and how often it was met */
    uint64_t topic, page, beats, next, began;
    size_t hint; /* where in a message the stamp was last */
    struct bytes in, out, message;
};

/* Everything that a run counts; cleared at its beginning. */
struct counts {
    uint64_t deliveries, bytes, gaps, duplicates, bad, lost, answers;
    struct histogram latency;
};

struct world {
    struct script script;
    struct sockaddr_in address; /* its port is that of the connections made next */
    int epoll, timer, topics;
    struct connection *connections;
    int count, room, live, connecting;
    int *waiting, waiting_count; /* connections whose turn to connect has not come */
    int concurrency;
    char **tokens;
    int token_count;
    struct counts counts;
    uint64_t clock; /* when the newest bytes were read */
    int recording;
    struct histogram opening; /* from connect() to live */
    void (*delivered)(struct connection *, uint64_t number);
    void (*told)(struct connection *, const unsigned char *data, size_t length);
};

extern struct world world;

struct connection *connection_new(enum role role, uint64_t topic);
void connections_open(void);          /* as many at once as concurrency allows */
void connection_drop(struct connection *);
void connection_flush(struct connection *);
void connection_queue(struct connection *, const char *data, size_t length); /* sent by connection_flush */
void connection_event(struct connection *, uint32_t events);
void connection_beat(struct connection *);
void connection_mute(struct connection *, int muted);
struct values connection_values(const struct connection *);

#endif
