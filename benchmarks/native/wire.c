#define _GNU_SOURCE
#include "wire.h"

#include <sys/epoll.h>

enum { CHUNK = 256 * 1024 };

struct world world;

static void advance(struct connection *c);

static void watch(struct connection *c, int out) {
    struct epoll_event e = {(c->muted ? 0 : EPOLLIN) | (out ? EPOLLOUT : 0), {.u32 = (uint32_t)c->index}};
    if (epoll_ctl(world.epoll, EPOLL_CTL_MOD, c->fd, &e)) die("epoll_ctl: %s", strerror(errno));
    c->armed = out;
}

struct values connection_values(const struct connection *c) {
    struct values v = {0};
    v.connection = (uint64_t)c->index;
    v.topic = c->topic;
    v.page = c->page;
    v.beat = c->beats;
    if (world.token_count) {
        char *token = world.tokens[c->index % world.token_count];
        v.token = (struct text){token, strlen(token)};
    }
    return v;
}

struct connection *connection_new(enum role role, uint64_t topic) {
    if (world.count == world.room) die("more connections than announced");
    struct connection *c = &world.connections[world.count];
    memset(c, 0, sizeof *c);
    c->fd = -1;
    c->index = world.count++;
    c->role = role;
    c->topic = topic;
    c->port = world.address.sin_port;
    world.waiting[world.waiting_count++] = c->index;
    return c;
}

static void start(struct connection *c) {
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0) die("socket: %s", strerror(errno));
    unblock(c->fd);
    c->state = CONNECTING;
    c->step = c->waited = 0;
    c->page = 0;
    c->next = NOT_YET;
    c->began = now_ns();
    bytes_clear(&c->in);
    bytes_clear(&c->out);
    bytes_clear(&c->message);
    world.connecting++;
    struct sockaddr_in address = world.address;
    address.sin_port = c->port;
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
    struct epoll_event e = {EPOLLIN | EPOLLOUT, {.u32 = (uint32_t)c->index}};
    if (epoll_ctl(world.epoll, EPOLL_CTL_ADD, c->fd, &e)) die("epoll_ctl: %s", strerror(errno));
    c->armed = 1;
}

void connections_open(void) {
    while (world.waiting_count && world.connecting < world.concurrency)
        start(&world.connections[world.waiting[--world.waiting_count]]);
}

void connection_drop(struct connection *c) {
    if (c->fd < 0) return;
    if (c->state == LIVE) world.live--;
    else if (c->state != GONE) world.connecting--;
    close(c->fd);
    c->fd = -1;
    c->state = GONE;
}

static void lost(struct connection *c, const char *why) {
    if (c->state != LIVE) fprintf(stderr, "connection %d ended before it was live: %s\n", c->index, why);
    world.counts.lost++;
    connection_drop(c);
}

void connection_flush(struct connection *c) {
    size_t length = bytes_length(&c->out);
    if (!length || c->armed || c->fd < 0) return;
    ssize_t n = send(c->fd, c->out.data + c->out.from, length, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        lost(c, strerror(errno));
        return;
    }
    if (n > 0) c->out.from += (size_t)n;
    if (bytes_length(&c->out)) watch(c, 1);
}

void connection_queue(struct connection *c, const char *data, size_t length) {
    unsigned char head[14];
    size_t n = frame_head(head, world.script.binary ? 2 : 1, length, 1);
    bytes_add(&c->out, head, n);
    bytes_add(&c->out, data, length);
}

static void say(struct connection *c, const struct text *form, const struct values *v) {
    static struct bytes text;
    bytes_clear(&text);
    script_expand(&text, form, v);
    connection_queue(c, text.data, text.to);
}

void connection_beat(struct connection *c) {
    const struct part *part = &world.script.parts[c->role];
    if (!part->beat_every || c->state != LIVE) return;
    c->beats++;
    struct values v = connection_values(c);
    say(c, &part->beat, &v);
    connection_flush(c);
}

void connection_mute(struct connection *c, int muted) {
    c->muted = muted;
    if (c->fd >= 0) watch(c, c->armed);
}

static void upgrade(struct connection *c) {
    static struct bytes text;
    struct values v = connection_values(c);
    const struct script *s = &world.script;
    bytes_clear(&text);
    char line[128];
    bytes_add(&text, "GET ", 4);
    script_expand(&text, &s->path, &v);
    int n = snprintf(line, sizeof line, " HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n", ntohs(c->port));
    bytes_add(&text, line, (size_t)n);
    static const char fixed[] = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    bytes_add(&text, fixed, sizeof fixed - 1);
    if (s->headers.length) script_expand(&text, &s->headers, &v);
    bytes_add(&text, "\r\n", 2);
    bytes_add(&c->out, text.data, text.to);
    c->state = UPGRADING;
}

/* Say what comes next, up to what has to be waited for. */
static void advance(struct connection *c) {
    const struct part *part = &world.script.parts[c->role];
    struct values v = connection_values(c);
    for (; c->step < part->step_count; c->step++) {
        const struct step *s = &part->steps[c->step];
        if (s->op == WAIT || s->op == WAIT_EACH) return;
        int times = s->op == EACH ? world.topics : 1;
        for (int i = 0; i < times; i++) {
            if (s->op == EACH) v.topic = (uint64_t)i;
            say(c, &s->text, &v);
        }
    }
    c->state = LIVE;
    world.live++;
    world.connecting--;
    histogram_add(&world.opening, now_ns() - c->began);
    connections_open();
}

static uint64_t digits(const unsigned char *at, int count) {
    uint64_t n = 0;
    while (count-- && *at >= '0' && *at <= '9') n = n * 10 + (uint64_t)(*at++ - '0');
    return n;
}

static const unsigned char *find_stamp(const unsigned char *data, size_t length, size_t hint) {
    if (length < STAMP_LENGTH) return NULL;
    const unsigned char *last = data + length - STAMP_LENGTH;
    if (hint <= length - STAMP_LENGTH && !memcmp(data + hint, "bench:", 6)) return data + hint;
    for (const unsigned char *at = data; at <= last; at++) {
        at = memchr(at, 'b', (size_t)(last - at) + 1);
        if (!at) return NULL;
        if (!memcmp(at, "bench:", 6) && at[25] == ':' && at[36] == ':') return at;
    }
    return NULL;
}

static void delivery(struct connection *c, const unsigned char *stamp, size_t length) {
    uint64_t sent = digits(stamp + 6, 19), number = digits(stamp + 26, 10);
    struct counts *k = &world.counts;
    if (c->next != NOT_YET && number != c->next) {
        if (number < c->next) {
            k->duplicates++;
            return;
        }
        k->gaps += number - c->next;
    }
    c->next = number + 1;
    k->deliveries++;
    k->bytes += length;
    if (world.recording && world.clock > sent) histogram_add(&k->latency, world.clock - sent);
    world.delivered(c, number);
}

static void answer(struct connection *c, const unsigned char *data, size_t length) {
    const struct part *part = &world.script.parts[c->role];
    if (world.told) world.told(c, data, length);
    if (world.script.bad.length && text_in(&world.script.bad, data, length)) world.counts.bad++;
    for (int i = 0; i < part->rule_count; i++) {
        const struct rule *r = &part->rules[i];
        if (!text_in(&r->has, data, length) || (r->lacks.length && text_in(&r->lacks, data, length))) continue;
        struct values v = connection_values(c);
        const unsigned char *n = memmem(data, length, "\"n\":", 4);
        if (n) v.n = digits(n + 4, (int)(length - (size_t)(n + 4 - data)));
        say(c, &r->answer, &v);
        c->page++;
        world.counts.answers++;
    }
    if (c->state != STEPPING) return;
    const struct step *s = &part->steps[c->step];
    if (!text_in(&s->text, data, length)) return;
    if (++c->waited < (s->op == WAIT_EACH ? world.topics : 1)) return;
    c->waited = 0;
    c->step++;
    advance(c);
}

static void message(struct connection *c, const unsigned char *data, size_t length) {
    const unsigned char *stamp = NULL;
    if (c->state == LIVE && c->role == OBSERVER) {
        stamp = find_stamp(data, length, c->hint);
        if (stamp) c->hint = (size_t)(stamp - data);
    }
    if (stamp) delivery(c, stamp, length);
    else answer(c, data, length);
}

/* Messages that follow each other without regard to frames: all stamps in the frame, and the one that the last
   frame cut. */
static void stream(struct connection *c, const unsigned char *data, size_t length) {
    if (c->state != LIVE || c->role != OBSERVER || length < STAMP_LENGTH) answer(c, data, length);
    if (c->state != LIVE || c->role != OBSERVER) return;
    bytes_add(&c->message, data, length);
    world.counts.bytes += length;
    const unsigned char *at = (unsigned char *)c->message.data + c->message.from;
    const unsigned char *end = (unsigned char *)c->message.data + c->message.to, *stamp;
    while ((stamp = find_stamp(at, (size_t)(end - at), SIZE_MAX))) {
        delivery(c, stamp, 0);
        at = stamp + STAMP_LENGTH;
    }
    if (end - at >= STAMP_LENGTH) at = end - STAMP_LENGTH + 1;
    c->message.from = (size_t)(at - (unsigned char *)c->message.data);
}

static void frame(struct connection *c, const struct frame *f) {
    if (f->opcode == 9) {
        unsigned char head[14];
        bytes_add(&c->out, head, frame_head(head, 10, f->length, 1));
        bytes_add(&c->out, f->payload, f->length);
    } else if (f->opcode == 8) {
        unsigned code = f->length >= 2 ? (unsigned)(f->payload[0] << 8 | f->payload[1]) : 0;
        fprintf(stderr, "connection %d closed with %u: %.*s\n", c->index, code, (int)(f->length > 2 ? f->length - 2 : 0),
                (char *)f->payload + 2);
    } else if (f->opcode <= 2 && world.script.stream) {
        stream(c, f->payload, f->length);
    } else if (f->opcode <= 2 && f->fin && f->opcode) {
        message(c, f->payload, f->length);
    } else if (f->opcode <= 2) {
        bytes_add(&c->message, f->payload, f->length);
        if (!f->fin) return;
        message(c, (unsigned char *)c->message.data + c->message.from, bytes_length(&c->message));
        bytes_clear(&c->message);
    }
}

/* What of the bytes is whole is taken; returns how many these were. */
static size_t take(struct connection *c, unsigned char *data, size_t length) {
    size_t taken = 0;
    if (c->state == UPGRADING) {
        unsigned char *end = memmem(data, length, "\r\n\r\n", 4);
        if (!end) return 0;
        if (length < 12 || memcmp(data + 9, "101", 3)) {
            fprintf(stderr, "connection %d was refused: %.*s\n", c->index, (int)length, (char *)data);
            lost(c, "refused");
            return length;
        }
        c->state = STEPPING;
        taken = (size_t)(end + 4 - data);
        advance(c);
    }
    struct frame f;
    while (c->fd >= 0 && frame_parse(data + taken, length - taken, &f)) {
        frame(c, &f);
        taken += f.whole;
    }
    return taken;
}

static void readable(struct connection *c) {
    static unsigned char *chunk;
    static size_t room;
    size_t kept = bytes_length(&c->in);
    if (room < kept + CHUNK) {
        room = kept + 2 * CHUNK;
        chunk = realloc(chunk, room);
        if (!chunk) die("no memory");
    }
    ssize_t n = recv(c->fd, chunk + kept, CHUNK, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        lost(c, n ? strerror(errno) : "the other side closed it");
        return;
    }
    world.clock = now_ns();
    if (kept) memcpy(chunk, c->in.data + c->in.from, kept);
    size_t all = kept + (size_t)n, taken = take(c, chunk, all);
    bytes_clear(&c->in);
    if (taken < all) bytes_add(&c->in, chunk + taken, all - taken);
}

void connection_event(struct connection *c, uint32_t events) {
    if (c->fd < 0) return;
    if (events & EPOLLOUT) {
        if (c->state == CONNECTING) {
            int error = 0;
            socklen_t size = sizeof error;
            getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
            if (error) {
                lost(c, strerror(error));
                return;
            }
            upgrade(c);
        }
        watch(c, 0);
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(c);
    connection_flush(c);
}
