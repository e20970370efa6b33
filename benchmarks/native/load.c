/* The load generator: observers and a publisher of one server, driven by lines on standard input, each answered
   by one line of JSON.

       load --script FILE --port PORT [--host ADDRESS] [--tokens FILE] [--pid PID] [--room CONNECTIONS]

       open count=1000 topics=1 concurrency=64     observers; observer i watches topic i modulo topics
       publisher topics=1                          one more connection
           port=PORT                               of either: at another server than the one of the command line
       calibrate size=500                          makes events as they arrive that large
       closed window=20 seconds=3 warm=0.5         so many events are under way; the next when one has reached all
       paced rate=20 seconds=3 warm=0.5            so many events a second, stamped with the time they were due
       array batch=256 window=2 seconds=3          so many changes in a message, so many messages under way, each timed
                                                   to its acknowledgement; rate=: so many messages a second instead
       storm concurrency=64                        all observers drop, and come back
       stall count=1                               so many observers stop reading
       quit

   A delivery is timed from the stamp inside it to the read that brought it. Whatever else comes meanwhile is
   answered as the script says. */
#define _GNU_SOURCE
#include "wire.h"

#include <arpa/inet.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>

enum { RING = 8192, STDIN = 0x7ffffffe, TIMER = 0x7fffffff };

struct topic {
    uint64_t published, *left; /* for each event under way, how many observers have not got it; `ring` of them */
    int observers;
};

static struct topic *topics;
static struct connection *publisher;
static uint64_t under_way, events, turn, pid;
static struct bytes orders; /* what came on standard input */
static int window;
static uint64_t ring;
static double rate;
static uint64_t due, interval;
static char *padding;
static size_t pad, seen_size;
static int beat_at, server_ticks, batch, port;
static struct {
    uint64_t last, sent;
} unacknowledged[RING]; /* messages of changes: their last number, and when each was due or sent */
static uint64_t first_open, next_open;

static void delivered(struct connection *c, uint64_t number) {
    struct topic *t = &topics[c->topic];
    if (t->published - number <= ring && !--t->left[number % ring]) under_way--;
}

/* Put one event into the publisher's buffer. */
static void publish(uint64_t stamped) {
    static struct bytes body, event;
    struct topic *t = &topics[turn];
    char stamp[STAMP_LENGTH + 1];
    snprintf(stamp, sizeof stamp, "bench:%019llu:%010llu:", (unsigned long long)stamped, (unsigned long long)t->published);
    struct values v = connection_values(publisher);
    v.topic = turn;
    v.number = t->published + world.script.offset + 1;
    v.stamp = (struct text){stamp, STAMP_LENGTH};
    v.pad = (struct text){padding, pad};
    bytes_clear(&body);
    script_expand(&body, &world.script.body, &v);
    v.body = (struct text){body.data, body.to};
    v.size = body.to;
    bytes_clear(&event);
    script_expand(&event, &world.script.event, &v);
    connection_queue(publisher, event.data, event.to);
    t->left[t->published++ % ring] = (uint64_t)t->observers;
    turn = (turn + 1) % (uint64_t)world.topics;
    events++;
    if (t->observers) under_way++;
}

/* Put one message of changes into the publisher's buffer. */
static void publish_array(uint64_t stamped) {
    static struct bytes list, message;
    struct topic *t = &topics[turn];
    struct values v = connection_values(publisher);
    v.topic = turn;
    turn = (turn + 1) % (uint64_t)world.topics;
    v.number = t->published + world.script.offset + 1;
    v.pad = (struct text){padding, pad};
    bytes_clear(&list);
    for (int i = 0; i < batch; i++) {
        if (i) bytes_add(&list, ",", 1);
        v.n = t->published++;
        script_expand(&list, &world.script.change, &v);
    }
    v.changes = (struct text){list.data, list.to};
    bytes_clear(&message);
    script_expand(&message, &world.script.array, &v);
    connection_queue(publisher, message.data, message.to);
    unacknowledged[next_open % RING].last = t->published + world.script.offset;
    unacknowledged[next_open++ % RING].sent = stamped;
    under_way++;
}

/* An acknowledgement: of all messages up to its number. Of several topics each is another's, and has no more
   than one message under way: then it counts for one. */
static void told(struct connection *c, const unsigned char *data, size_t length) {
    const struct text *mark = &world.script.accepted;
    if (c != publisher || !batch || !mark->length) return;
    const unsigned char *at = memmem(data, length, mark->data, mark->length);
    if (!at) return;
    uint64_t number = world.topics > 1 ? unacknowledged[first_open % RING].last
                                       : strtoull((const char *)at + mark->length, NULL, 10);
    while (first_open < next_open && unacknowledged[first_open % RING].last <= number) {
        uint64_t sent = unacknowledged[first_open++ % RING].sent;
        under_way--;
        world.counts.deliveries += (uint64_t)batch;
        events++;
        if (world.recording && world.clock > sent) histogram_add(&world.counts.latency, world.clock - sent);
        if (world.topics > 1) break;
    }
}

static void pump(void) {
    if (!publisher || publisher->state != LIVE) return;
    if (batch) {
        uint64_t now = now_ns();
        while (window && under_way < (uint64_t)window) publish_array(now);
        for (; rate > 0 && due <= now && under_way < RING; due += interval) publish_array(due);
        connection_flush(publisher);
        return;
    }
    if (window)
        while (under_way < (uint64_t)window) publish(now_ns());
    if (rate > 0) {
        uint64_t now = now_ns();
        while (due <= now && under_way < RING) {
            publish(due);
            due += interval;
        }
    }
    connection_flush(publisher);
}

static void read_orders(void) {
    ssize_t n = read(0, bytes_reserve(&orders, 4096), 4096);
    if (n <= 0) exit(0); /* whoever started this is gone */
    orders.to += (size_t)n;
}

/* One round of the loop: until something happens, or the deadline. */
static void turn_once(uint64_t deadline) {
    struct epoll_event happened[512];
    uint64_t until = rate > 0 && due < deadline ? due : deadline, now = now_ns();
    uint64_t beat = now + 100000000u;
    if (beat < until) until = beat;
    struct itimerspec at = {{0, 0}, {(time_t)(until / 1000000000u), (long)(until % 1000000000u)}};
    int timeout = until <= now ? 0 : -1;
    if (timeout) timerfd_settime(world.timer, TFD_TIMER_ABSTIME, &at, NULL);
    int n = epoll_wait(world.epoll, happened, 512, timeout);
    for (int i = 0; i < n; i++) {
        uint32_t who = happened[i].data.u32;
        uint64_t ignored;
        if (who == TIMER) {
            if (read(world.timer, &ignored, sizeof ignored) < 0 && errno != EAGAIN) die("timer: %s", strerror(errno));
        } else if (who == STDIN) {
            read_orders();
        } else {
            connection_event(&world.connections[who], happened[i].events);
        }
    }
    pump();
    /* Heartbeats, each connection at its own time of the interval. */
    static uint64_t last;
    now = now_ns();
    if (!last) last = now;
    double every = world.script.parts[OBSERVER].beat_every;
    if (every > 0 && world.count) {
        double share = (double)(now - last) / 1e9 / every * world.count;
        if (share >= 1) {
            for (int i = 0; i < (int)share && i < world.count; i++) {
                connection_beat(&world.connections[beat_at]);
                beat_at = (beat_at + 1) % world.count;
            }
            last = now;
        }
    }
}

static void run_for(double seconds) {
    uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
    do turn_once(end);
    while (now_ns() < end);
}

static double own_cpu(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* Processor seconds of the server so far: what it computed itself, and what the kernel did for it. */
static void server_cpu(double *user, double *kernel) {
    *user = *kernel = 0;
    if (!pid) return;
    char name[64], line[1024];
    snprintf(name, sizeof name, "/proc/%llu/stat", (unsigned long long)pid);
    FILE *in = fopen(name, "r");
    if (!in) return;
    if (fgets(line, sizeof line, in)) {
        unsigned long u, k;
        char *at = strrchr(line, ')');
        if (at && sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &u, &k) == 2) {
            *user = (double)u / server_ticks;
            *kernel = (double)k / server_ticks;
        }
    }
    fclose(in);
}

static double argument(const char *line, const char *name, double otherwise) {
    char wanted[32];
    snprintf(wanted, sizeof wanted, " %s=", name);
    const char *at = strstr(line, wanted);
    return at ? strtod(at + strlen(wanted), NULL) : otherwise;
}

static int wait_live(int wanted, double seconds) {
    uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
    connections_open();
    while (world.live < wanted && now_ns() < end && !world.counts.lost) turn_once(end);
    return world.live >= wanted;
}

static void print_opening(double took, int wanted) {
    printf("{\"live\": %d, \"wanted\": %d, \"lost\": %llu, \"seconds\": %.6f, ", world.live, wanted,
           (unsigned long long)world.counts.lost, took);
    histogram_print(&world.opening);
    printf("}\n");
}

static void opened(int wanted, double seconds) {
    uint64_t began = now_ns();
    histogram_clear(&world.opening);
    memset(&world.counts, 0, sizeof world.counts);
    wait_live(wanted, seconds);
    print_opening((double)(now_ns() - began) / 1e9, wanted);
}

static void make_topics(int count) {
    if (topics) return;
    world.topics = count;
    ring = count == 1 ? RING : 256;
    topics = calloc((size_t)count, sizeof *topics);
    if (!topics) die("no memory");
    for (int i = 0; i < count; i++) {
        topics[i].left = calloc(ring, sizeof(uint64_t));
        if (!topics[i].left) die("no memory");
    }
}

static void command_open(const char *line) {
    int count = (int)argument(line, "count", 1), wanted = world.live + count;
    int topic_count = (int)argument(line, "topics", world.topics ? world.topics : 1);
    world.concurrency = (int)argument(line, "concurrency", 64);
    world.address.sin_port = htons((uint16_t)argument(line, "port", port));
    make_topics(topic_count);
    for (int i = 0; i < count; i++) {
        uint64_t topic = (uint64_t)(i % world.topics);
        connection_new(OBSERVER, topic);
        topics[topic].observers++;
    }
    /* The last one waiting goes first: the order does not matter. */
    opened(wanted, argument(line, "timeout", 60));
}

static void command_publisher(const char *line) {
    make_topics((int)argument(line, "topics", 1));
    world.concurrency = 64;
    world.address.sin_port = htons((uint16_t)argument(line, "port", port));
    publisher = connection_new(PUBLISHER, 0);
    opened(world.live + 1, argument(line, "timeout", 60));
}

static int drained(double seconds) {
    uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
    while (under_way && now_ns() < end && !world.counts.lost) turn_once(end);
    return !under_way;
}

static void command_calibrate(const char *line) {
    size_t wanted = (size_t)argument(line, "size", 500);
    pad = 0;
    for (int i = 0; i < 2; i++) {
        uint64_t before = world.counts.bytes, count = world.counts.deliveries;
        turn = 0;
        publish(now_ns());
        connection_flush(publisher);
        if (!drained(20) || world.counts.deliveries == count) {
            printf("{\"error\": \"the first event did not reach all: %llu under way, %llu lost\"}\n",
                   (unsigned long long)under_way, (unsigned long long)world.counts.lost);
            return;
        }
        seen_size = (size_t)((world.counts.bytes - before) / (world.counts.deliveries - count));
        if (i == 0) {
            pad = wanted > seen_size ? wanted - seen_size : 0;
            free(padding);
            padding = malloc(pad + 1);
            memset(padding, 'x', pad);
        }
    }
    printf("{\"size\": %zu, \"pad\": %zu}\n", seen_size, pad);
}

static void measure(double warm, double seconds) {
    if (warm > 0) run_for(warm);
    double user0, kernel0, user1, kernel1;
    memset(&world.counts, 0, sizeof world.counts);
    world.recording = 1;
    events = 0;
    double cpu = own_cpu();
    server_cpu(&user0, &kernel0);
    uint64_t began = now_ns();
    run_for(seconds);
    double took = (double)(now_ns() - began) / 1e9;
    server_cpu(&user1, &kernel1);
    cpu = own_cpu() - cpu;
    struct counts got = world.counts;
    uint64_t published = events;
    world.recording = 0;
    double offered = rate;
    uint64_t behind = 0;
    if (rate > 0) behind = now_ns() > due ? (now_ns() - due) / interval : 0;
    window = 0;
    rate = 0;
    int complete = drained(20);
    printf("{\"generator\": \"C\", \"seconds\": %.4f, \"events\": %llu, \"deliveries\": %llu, \"per_second\": %.1f, "
           "\"offered\": %.1f, \"behind\": %llu, \"size\": %zu, \"gaps\": %llu, \"duplicates\": %llu, \"bad\": %llu, "
           "\"lost\": %llu, \"complete\": %s, \"published\": %llu, \"delivered\": %llu, \"generator_cpu\": %.4f, \"server_user\": %.4f, \"server_kernel\": %.4f, ",
           took, (unsigned long long)published, (unsigned long long)got.deliveries, (double)got.deliveries / took, offered,
           (unsigned long long)behind, got.deliveries ? (size_t)(got.bytes / got.deliveries) : 0,
           (unsigned long long)world.counts.gaps, (unsigned long long)world.counts.duplicates,
           (unsigned long long)world.counts.bad, (unsigned long long)world.counts.lost, complete ? "true" : "false",
           (unsigned long long)events, (unsigned long long)world.counts.deliveries,
           cpu / took, user1 - user0, kernel1 - kernel0);
    histogram_print(&got.latency);
    printf("}\n");
}

static void command_closed(const char *line) {
    window = (int)argument(line, "window", 1);
    if (window > RING / 2) die("at most %d events under way", RING / 2);
    measure(argument(line, "warm", 0.5), argument(line, "seconds", 3));
}

static void command_paced(const char *line) {
    rate = argument(line, "rate", 20);
    interval = (uint64_t)(1e9 / rate);
    due = now_ns() + interval;
    measure(argument(line, "warm", 0.5), argument(line, "seconds", 3));
}

static void command_array(const char *line) {
    batch = (int)argument(line, "batch", 256);
    window = (int)argument(line, "window", 0);
    rate = argument(line, "rate", 0);
    interval = rate > 0 ? (uint64_t)(1e9 / rate) : 0;
    due = now_ns() + interval;
    pad = (size_t)argument(line, "pad", 0);
    free(padding);
    padding = malloc(pad + 1);
    memset(padding, 'x', pad);
    measure(argument(line, "warm", 0.5), argument(line, "seconds", 3));
    batch = 0;
}

static void command_storm(const char *line) {
    int wanted = world.live;
    world.concurrency = (int)argument(line, "concurrency", 64);
    world.waiting_count = 0;
    double user0, kernel0, user1, kernel1;
    for (int i = 0; i < world.count; i++) {
        struct connection *c = &world.connections[i];
        if (c->role != OBSERVER || c->state != LIVE) continue;
        connection_drop(c);
        world.waiting[world.waiting_count++] = i;
    }
    run_for(argument(line, "pause", 1)); /* the server notices */
    server_cpu(&user0, &kernel0);
    double cpu = own_cpu();
    uint64_t began = now_ns();
    histogram_clear(&world.opening);
    memset(&world.counts, 0, sizeof world.counts);
    wait_live(wanted, argument(line, "timeout", 60));
    double took = (double)(now_ns() - began) / 1e9;
    server_cpu(&user1, &kernel1);
    printf("{\"live\": %d, \"wanted\": %d, \"lost\": %llu, \"seconds\": %.6f, \"generator_cpu\": %.4f, "
           "\"server_user\": %.4f, \"server_kernel\": %.4f, ",
           world.live, wanted, (unsigned long long)world.counts.lost, took, (own_cpu() - cpu) / took, user1 - user0,
           kernel1 - kernel0);
    histogram_print(&world.opening);
    printf("}\n");
}

static void command_stall(const char *line) {
    int count = (int)argument(line, "count", 1), done = 0;
    for (int i = 0; i < world.count; i++) {
        struct connection *c = &world.connections[i];
        if (c->role != OBSERVER || c->state != LIVE) continue;
        if (c->muted || done == count) continue;
        connection_mute(c, 1);
        topics[c->topic].observers--;
        done++;
    }
    printf("{\"stalled\": %d}\n", done);
}

static void read_tokens(const char *file) {
    FILE *in = fopen(file, "r");
    if (!in) die("cannot read %s: %s", file, strerror(errno));
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    int space = 0;
    while ((length = getline(&line, &room, in)) > 0) {
        if (line[length - 1] == '\n') line[--length] = 0;
        if (world.token_count == space) {
            space = space * 2 + 16;
            world.tokens = realloc(world.tokens, (size_t)space * sizeof *world.tokens);
        }
        world.tokens[world.token_count++] = strdup(line);
    }
    free(line);
    fclose(in);
}

static int obey(char *line) {
    struct {
        const char *name;
        void (*run)(const char *);
    } all[] = {{"open", command_open},     {"publisher", command_publisher}, {"calibrate", command_calibrate},
               {"closed", command_closed}, {"paced", command_paced},         {"storm", command_storm},
               {"stall", command_stall},   {"array", command_array}};
    if (!strncmp(line, "quit", 4)) return 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strncmp(line, all[i].name, strlen(all[i].name))) continue;
        all[i].run(line);
        fflush(stdout);
        return 1;
    }
    die("unknown command: %s", line);
}

int main(int count, char **arguments) {
    const char *host = "127.0.0.1", *script = NULL, *tokens = NULL;
    world.room = 20000;
    for (int i = 1; i + 1 < count; i += 2) {
        const char *name = arguments[i], *value = arguments[i + 1];
        if (!strcmp(name, "--script")) script = value;
        else if (!strcmp(name, "--host")) host = value;
        else if (!strcmp(name, "--port")) port = atoi(value);
        else if (!strcmp(name, "--tokens")) tokens = value;
        else if (!strcmp(name, "--pid")) pid = strtoull(value, NULL, 10);
        else if (!strcmp(name, "--room")) world.room = atoi(value);
        else die("unknown option %s", name);
    }
    if (!script || !port) die("give --script and --port");
    server_ticks = (int)sysconf(_SC_CLK_TCK);
    script_read(&world.script, script);
    if (tokens) read_tokens(tokens);
    world.address.sin_family = AF_INET;
    if (inet_pton(AF_INET, host, &world.address.sin_addr) != 1) die("%s is no IPv4 address", host);
    world.connections = calloc((size_t)world.room, sizeof *world.connections);
    world.waiting = calloc((size_t)world.room, sizeof *world.waiting);
    world.delivered = delivered;
    world.told = told;
    world.epoll = epoll_create1(0);
    world.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    padding = calloc(1, 1);
    struct epoll_event in = {EPOLLIN, {.u32 = STDIN}}, timer = {EPOLLIN, {.u32 = TIMER}};
    if (epoll_ctl(world.epoll, EPOLL_CTL_ADD, 0, &in) || epoll_ctl(world.epoll, EPOLL_CTL_ADD, world.timer, &timer))
        die("epoll: %s", strerror(errno));
    for (;;) {
        char *end = memchr(orders.data ? orders.data + orders.from : "", '\n', bytes_length(&orders));
        if (!end) {
            turn_once(now_ns() + 1000000000u);
            continue;
        }
        *end = 0;
        char *line = orders.data + orders.from;
        orders.from = (size_t)(end + 1 - orders.data);
        if (!obey(line)) return 0;
    }
}
