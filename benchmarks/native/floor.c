/* The floor: what one C program needs to pass an event on to all, one frame in one send(), or up to K frames.

       floor --port PORT [--per-send K]

   {"topic":"00007",… publishes to all who have said "subscribe 00007". A reader that does not keep up is queued for,
   without a limit. */
#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <signal.h>
#include <sys/epoll.h>

enum { ROOM = 20000, TOPICS = 10000, CHUNK = 256 * 1024 };

struct client {
    int fd, upgraded, subscribed, armed, topic;
    struct bytes in, out;
};

static struct client clients[ROOM];
static int epoll_fd, per_send = 1;

/* What was published in a topic since the last turn of the loop, framed, and who gets it. */
static struct topic {
    int *subscribers, count, room;
    struct bytes frames;
    size_t *ends; /* where each frame ends */
    int frame_count, end_room;
} topics[TOPICS];
static int *changed, changed_count, changed_room;

static void push(int **list, int *count, int *room, int value) {
    if (*count == *room) {
        *room = *room * 2 + 16;
        *list = realloc(*list, (size_t)*room * sizeof **list);
        if (!*list) die("no memory");
    }
    (*list)[(*count)++] = value;
}

static uint32_t rotate(uint32_t x, int n) { return x << n | x >> (32 - n); }

/* SHA-1 (RFC 3174) of at most 119 bytes: the handshake's answer (RFC 6455, 4.2.2) needs it of 60. */
static void sha1(const char *text, size_t length, unsigned char digest[20]) {
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    unsigned char block[128] = {0};
    size_t whole = length + 9 > 64 ? 128 : 64;
    memcpy(block, text, length);
    block[length] = 0x80;
    for (int i = 0; i < 8; i++) block[whole - 1 - (size_t)i] = (unsigned char)((uint64_t)length * 8 >> (8 * i));
    for (size_t from = 0; from < whole; from += 64) {
        uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)block[from + 4 * (size_t)i] << 24 | (uint32_t)block[from + 4 * (size_t)i + 1] << 16 |
                   (uint32_t)block[from + 4 * (size_t)i + 2] << 8 | block[from + 4 * (size_t)i + 3];
        for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        for (int i = 0; i < 80; i++) {
            uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
            static const uint32_t k[4] = {0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6};
            uint32_t next = rotate(a, 5) + f + e + k[i / 20] + w[i];
            e = d, d = c, c = rotate(b, 30), b = a, a = next;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
    }
    for (int i = 0; i < 20; i++) digest[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64(const unsigned char *data, char *text) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < 20; i += 3) {
        uint32_t n = (uint32_t)data[i] << 16 | (uint32_t)data[i + 1] << 8 | (i + 2 < 20 ? data[i + 2] : 0);
        for (int j = 0; j < 4; j++) *text++ = letters[n >> (18 - 6 * j) & 63];
    }
    text[-1] = '=';
    *text = 0;
}

static void watch(int i, int out) {
    struct epoll_event e = {EPOLLIN | (out ? EPOLLOUT : 0), {.u32 = (uint32_t)i}};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, clients[i].fd, &e);
    clients[i].armed = out;
}

static void leave(int i) {
    struct client *c = &clients[i];
    struct topic *t = &topics[c->topic];
    for (int s = 0; c->subscribed && s < t->count; s++)
        if (t->subscribers[s] == i) {
            t->subscribers[s] = t->subscribers[--t->count];
            break;
        }
    close(c->fd);
    bytes_free(&c->in);
    bytes_free(&c->out);
    memset(c, 0, sizeof *c);
}

static void flush(int i) {
    struct client *c = &clients[i];
    size_t length = bytes_length(&c->out);
    ssize_t n = length ? send(c->fd, c->out.data + c->out.from, length, MSG_NOSIGNAL) : 0;
    if (n > 0) c->out.from += (size_t)n;
    int waiting = bytes_length(&c->out) > 0;
    if (waiting != c->armed) watch(i, waiting);
}

static void write_to(int i, const char *data, size_t length) {
    struct client *c = &clients[i];
    if (!bytes_length(&c->out)) {
        ssize_t n = send(c->fd, data, length, MSG_NOSIGNAL);
        if (n == (ssize_t)length) return;
        if (n < 0 && errno != EAGAIN) return; /* its end is read next */
        if (n > 0) data += n, length -= (size_t)n;
    }
    bytes_add(&c->out, data, length);
    if (!c->armed) watch(i, 1);
}

/* Everything that was published since: in groups of per_send, each to all. */
static void pass_on(void) {
    for (int k = 0; k < changed_count; k++) {
        struct topic *t = &topics[changed[k]];
        size_t from = 0;
        for (int first = 0; first < t->frame_count; first += per_send) {
            int last = first + per_send < t->frame_count ? first + per_send : t->frame_count;
            size_t to = t->ends[last - 1];
            for (int s = 0; s < t->count; s++) write_to(t->subscribers[s], t->frames.data + from, to - from);
            from = to;
        }
        t->frame_count = 0;
        bytes_clear(&t->frames);
    }
    changed_count = 0;
}

static int upgrade(int i, char *data, size_t length) {
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char *end = memmem(data, length, "\r\n\r\n", 4), *key = memmem(data, length, "Sec-WebSocket-Key: ", 19);
    if (!end) return 0;
    if (!key || key + 19 + 24 > end) return -1;
    char joined[60 + 1], proof[32], text[256];
    unsigned char digest[20];
    memcpy(joined, key + 19, 24);
    memcpy(joined + 24, guid, 36);
    sha1(joined, 60, digest);
    base64(digest, proof);
    int n = snprintf(text, sizeof text,
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Accept: %s\r\n\r\n",
                     proof);
    write_to(i, text, (size_t)n);
    clients[i].upgraded = 1;
    return (int)(end + 4 - data);
}

static int topic_at(const unsigned char *digits) {
    int n = 0;
    for (int i = 0; i < 5; i++) n = n * 10 + (digits[i] - '0');
    if (n < 0 || n >= TOPICS) die("no such topic");
    return n;
}

static void message(int i, unsigned char *data, size_t length) {
    struct client *c = &clients[i];
    if (length > 16 && data[0] == '{') {
        unsigned char head[14];
        int number = topic_at(data + 10);
        struct topic *t = &topics[number];
        if (!t->frame_count) push(&changed, &changed_count, &changed_room, number);
        if (t->frame_count == t->end_room) {
            t->end_room = t->end_room * 2 + 64;
            t->ends = realloc(t->ends, (size_t)t->end_room * sizeof *t->ends);
            if (!t->ends) die("no memory");
        }
        size_t n = frame_head(head, 1, length, 0);
        bytes_add(&t->frames, head, n);
        bytes_add(&t->frames, data, length);
        t->ends[t->frame_count++] = t->frames.to;
    } else if (length == 15 && !memcmp(data, "subscribe ", 10) && !c->subscribed) {
        static const char welcome[] = "\x81\x07welcome";
        c->subscribed = 1;
        c->topic = topic_at(data + 10);
        struct topic *t = &topics[c->topic];
        push(&t->subscribers, &t->count, &t->room, i);
        write_to(i, welcome, sizeof welcome - 1);
    }
}

static int read_from(int i) {
    struct client *c = &clients[i];
    ssize_t n = recv(c->fd, bytes_reserve(&c->in, CHUNK), CHUNK, 0);
    if (n < 0 && errno == EAGAIN) return 1;
    if (n <= 0) return 0;
    c->in.to += (size_t)n;
    if (!c->upgraded) {
        int taken = upgrade(i, c->in.data + c->in.from, bytes_length(&c->in));
        if (taken < 0) return 0;
        c->in.from += (size_t)taken;
    }
    struct frame f;
    while (c->upgraded && frame_parse((unsigned char *)c->in.data + c->in.from, bytes_length(&c->in), &f)) {
        for (size_t at = 0; f.masked && at < f.length; at++) f.payload[at] ^= f.mask[at & 3];
        if (f.opcode == 8) return 0;
        message(i, f.payload, f.length);
        c->in.from += f.whole;
    }
    if (!bytes_length(&c->in)) bytes_free(&c->in); /* an idle client keeps nothing */
    return 1;
}

int main(int count, char **arguments) {
    int port = 0, one = 1;
    for (int i = 1; i + 1 < count; i += 2) {
        if (!strcmp(arguments[i], "--port")) port = atoi(arguments[i + 1]);
        else if (!strcmp(arguments[i], "--per-send")) per_send = atoi(arguments[i + 1]);
        else die("unknown option %s", arguments[i]);
    }
    signal(SIGPIPE, SIG_IGN);
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(listening, (struct sockaddr *)&address, size) || listen(listening, 1024)) die("listen: %s", strerror(errno));
    getsockname(listening, (struct sockaddr *)&address, &size);
    unblock(listening);
    epoll_fd = epoll_create1(0);
    struct epoll_event e = {EPOLLIN, {.u32 = ROOM}}, happened[512];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listening, &e);
    printf("listens at %d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(epoll_fd, happened, 512, -1);
        for (int k = 0; k < n; k++) {
            uint32_t i = happened[k].data.u32;
            if (i == ROOM) {
                int fd;
                while ((fd = accept(listening, NULL, NULL)) >= 0) {
                    if (fd >= ROOM) die("too many connections");
                    unblock(fd);
                    clients[fd].fd = fd;
                    struct epoll_event new = {EPOLLIN, {.u32 = (uint32_t)fd}};
                    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &new);
                }
                continue;
            }
            if (happened[k].events & EPOLLOUT) flush((int)i);
            if (happened[k].events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !read_from((int)i)) leave((int)i);
        }
        pass_on();
    }
}
