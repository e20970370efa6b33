/* What the generator and the floor share: time, buffers, sockets that do not block. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static inline __attribute__((noreturn, format(printf, 1, 2))) void die(const char *form, ...) {
    va_list list;
    va_start(list, form);
    vfprintf(stderr, form, list);
    va_end(list);
    fputc('\n', stderr);
    exit(1);
}

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Bytes that grow: data[from..to) is what they hold. */
struct bytes {
    char *data;
    size_t from, to, room;
};

static inline size_t bytes_length(const struct bytes *b) { return b->to - b->from; }

static inline void bytes_clear(struct bytes *b) { b->from = b->to = 0; }

static inline void bytes_free(struct bytes *b) {
    free(b->data);
    memset(b, 0, sizeof *b);
}

/* Room for n more; returns where they go. */
static inline char *bytes_reserve(struct bytes *b, size_t n) {
    if (b->from == b->to) b->from = b->to = 0;
    if (b->to + n > b->room) {
        if (b->from) {
            memmove(b->data, b->data + b->from, b->to - b->from);
            b->to -= b->from;
            b->from = 0;
        }
        if (b->to + n > b->room) {
            b->room = (b->to + n) * 3 / 2 + 64;
            b->data = realloc(b->data, b->room);
            if (!b->data) die("no memory");
        }
    }
    return b->data + b->to;
}

static inline void bytes_add(struct bytes *b, const void *data, size_t n) {
    memcpy(bytes_reserve(b, n), data, n);
    b->to += n;
}

static inline void unblock(int fd) {
    int one = 1;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* The head of an unmasked (mask = 0) or masked frame (RFC 6455, 5.2); the masking key is zero, so that the
   payload stays as it is. Returns its length. */
static inline size_t frame_head(unsigned char *at, int opcode, size_t length, int mask) {
    size_t n = 2;
    unsigned char bit = mask ? 0x80 : 0;
    at[0] = (unsigned char)(0x80 | opcode);
    if (length < 126) {
        at[1] = (unsigned char)(bit | length);
    } else if (length < 65536) {
        at[1] = bit | 126;
        at[2] = (unsigned char)(length >> 8);
        at[3] = (unsigned char)length;
        n = 4;
    } else {
        at[1] = bit | 127;
        for (int i = 0; i < 8; i++) at[2 + i] = (unsigned char)((uint64_t)length >> (56 - 8 * i));
        n = 10;
    }
    if (mask) {
        memset(at + n, 0, 4);
        n += 4;
    }
    return n;
}

struct frame {
    int opcode, fin;
    unsigned char *payload;
    size_t length, whole; /* of the payload, and with its head */
    unsigned char mask[4];
    int masked;
};

/* Read a frame's head. 1: all of it is there; 0: more has to come (whole is set when it is known). */
static inline int frame_parse(unsigned char *at, size_t there, struct frame *f) {
    size_t head = 2;
    f->whole = 0;
    if (there < 2) return 0;
    f->fin = at[0] >> 7;
    f->opcode = at[0] & 15;
    f->masked = at[1] >> 7;
    f->length = at[1] & 127;
    if (f->length == 126) {
        if (there < 4) return 0;
        f->length = (size_t)at[2] << 8 | at[3];
        head = 4;
    } else if (f->length == 127) {
        if (there < 10) return 0;
        f->length = 0;
        for (int i = 0; i < 8; i++) f->length = f->length << 8 | at[2 + i];
        head = 10;
    }
    if (f->masked) {
        if (there < head + 4) return 0;
        memcpy(f->mask, at + head, 4);
        head += 4;
    }
    f->payload = at + head;
    f->whole = head + f->length;
    return there >= f->whole;
}

#endif
