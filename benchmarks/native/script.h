/* A peer's script: what its connections say, and what they wait for. See script.c for the form. */
#ifndef BENCH_SCRIPT_H
#define BENCH_SCRIPT_H

#include "common.h"

enum role { OBSERVER, PUBLISHER, ROLES };
enum op { SEND, EACH, WAIT, WAIT_EACH };

struct text {
    char *data;
    size_t length;
};

struct step {
    enum op op;
    struct text text;
};

struct rule {
    struct text has, lacks, answer;
};

struct part {
    struct step steps[16];
    int step_count;
    struct rule rules[8];
    int rule_count;
    struct text beat;
    double beat_every; /* seconds; 0: none */
};

struct script {
    struct text path, headers; /* of the handshake */
    int binary, stream;
    struct text body, event;   /* what is published; `event` wraps `body` */
    struct text change, array; /* for publishing without observers */
    struct text accepted;      /* what stands before the number in an acknowledgement */
    struct text bad;           /* what an observer must not be told */
    uint64_t offset;           /* changes that the publisher's steps have used */
    struct part parts[ROLES];
};

/* What the names in braces stand for. */
struct values {
    uint64_t connection, topic, number, page, beat, n, size;
    struct text token, stamp, pad, body, changes;
};

void script_read(struct script *, const char *file);
void script_expand(struct bytes *out, const struct text *form, const struct values *);
int text_in(const struct text *what, const unsigned char *data, size_t length);

#endif
