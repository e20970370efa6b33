/* A script has one directive a line, its name, a space, and its value:

       path /            headers Name: value\r\n…      binary 1      stream 1
       body …   event …  change …  array …  accepted …  bad …  offset 3
       observer.send …   observer.wait …   observer.on HAS ! LACKS => ANSWER   observer.beat 15 …
       publisher.each … (once for each topic)   publisher.wait_each … (as often)

   Steps are gone through in order; rules (`on`) hold all the time, for messages that are no deliveries.
   Patterns are looked for in the first and last bytes of a message; ^ in front of one: it begins so; and with $ behind: it
   is no longer. In values \r, \n, \\ and \xHH are known, and
   {connection} (six digits), {topic} (five digits), {number}, {page}, {beat}, {n} (the number behind "n":
   in the message that is answered), {wall} (ns since 1970), {token}, {stamp}, {pad}, {body}, {changes},
   {size} (of the body), {varint} (MQTT's form of the body's size and 8). */
#define _GNU_SOURCE
#include "script.h"

enum { SEARCHED = 512 };

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

static struct text unescape(const char *s, size_t length) {
    struct text t = {malloc(length + 1), 0};
    if (!t.data) die("no memory");
    for (size_t i = 0; i < length; i++) {
        char c = s[i];
        if (c == '\\' && i + 1 < length) {
            char next = s[++i];
            if (next == 'r') c = '\r';
            else if (next == 'n') c = '\n';
            else if (next == 'x' && i + 2 < length && hex(s[i + 1]) >= 0 && hex(s[i + 2]) >= 0) {
                c = (char)(hex(s[i + 1]) * 16 + hex(s[i + 2]));
                i += 2;
            } else if (next != '\\') {
                t.data[t.length++] = c; /* not ours: JSON's, which stays */
                c = next;
            }
        }
        t.data[t.length++] = c;
    }
    t.data[t.length] = 0;
    return t;
}

int text_in(const struct text *what, const unsigned char *data, size_t length) {
    if (what->length && what->data[0] == '^') {
        size_t n = what->length - 1;
        int whole = n && what->data[n] == '$';
        n -= (size_t)whole;
        return length >= n && !memcmp(data, what->data + 1, n) && (!whole || length == n);
    }
    if (length <= 2 * SEARCHED) return memmem(data, length, what->data, what->length) != NULL;
    return memmem(data, SEARCHED, what->data, what->length) ||
           memmem(data + length - SEARCHED, SEARCHED, what->data, what->length);
}

static void read_rule(struct part *p, const char *value) {
    const char *arrow = strstr(value, " => ");
    if (!arrow || p->rule_count == 8) die("script: a rule is HAS ! LACKS => ANSWER, and there are at most 8");
    const char *not = memmem(value, (size_t)(arrow - value), " ! ", 3);
    struct rule *r = &p->rules[p->rule_count++];
    r->has = unescape(value, (size_t)((not ? not : arrow) - value));
    r->lacks = not ? unescape(not + 3, (size_t)(arrow - not - 3)) : (struct text){NULL, 0};
    r->answer = unescape(arrow + 4, strlen(arrow + 4));
}

static void read_part(struct part *p, const char *name, char *value) {
    static const char *ops[] = {"send", "each", "wait", "wait_each"};
    if (!strcmp(name, "on")) {
        read_rule(p, value);
        return;
    }
    if (!strcmp(name, "beat")) {
        p->beat_every = strtod(value, &value);
        p->beat = unescape(value + 1, strlen(value + 1));
        return;
    }
    for (int op = 0; op < 4; op++) {
        if (strcmp(name, ops[op])) continue;
        if (p->step_count == 16) die("script: at most 16 steps");
        p->steps[p->step_count++] = (struct step){(enum op)op, unescape(value, strlen(value))};
        return;
    }
    die("script: unknown directive %s", name);
}

void script_read(struct script *s, const char *file) {
    FILE *in = fopen(file, "r");
    if (!in) die("cannot read %s: %s", file, strerror(errno));
    memset(s, 0, sizeof *s);
    struct {
        const char *name;
        struct text *where;
    } texts[] = {{"path", &s->path},     {"headers", &s->headers}, {"body", &s->body},         {"event", &s->event},
                 {"change", &s->change}, {"array", &s->array},     {"accepted", &s->accepted}, {"bad", &s->bad}};
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    while ((length = getline(&line, &room, in)) > 0) {
        if (line[length - 1] == '\n') line[--length] = 0;
        if (!length) continue;
        char *value = strchr(line, ' ');
        if (!value) die("script: a directive without a value: %s", line);
        *value++ = 0;
        int known = 0;
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
            if (!strcmp(line, texts[i].name)) *texts[i].where = unescape(value, strlen(value)), known = 1;
        if (!strcmp(line, "binary")) s->binary = atoi(value), known = 1;
        if (!strcmp(line, "stream")) s->stream = atoi(value), known = 1;
        if (!strcmp(line, "offset")) s->offset = strtoull(value, NULL, 10), known = 1;
        if (known) continue;
        if (!strncmp(line, "observer.", 9)) read_part(&s->parts[OBSERVER], line + 9, value);
        else if (!strncmp(line, "publisher.", 10)) read_part(&s->parts[PUBLISHER], line + 10, value);
        else die("script: unknown directive %s", line);
    }
    free(line);
    fclose(in);
}

static void add_number(struct bytes *out, const char *form, uint64_t n) {
    char digits[32];
    bytes_add(out, digits, (size_t)snprintf(digits, sizeof digits, form, (unsigned long long)n));
}

static void add_varint(struct bytes *out, uint64_t n) {
    do {
        unsigned char byte = n & 127;
        n >>= 7;
        if (n) byte |= 128;
        bytes_add(out, &byte, 1);
    } while (n);
}

static void add_wall(struct bytes *out) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    add_number(out, "%llu", (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec);
}

static int add_value(struct bytes *out, const char *name, size_t length, const struct values *v) {
#define IS(word) (length == sizeof word - 1 && !memcmp(name, word, sizeof word - 1))
    if (IS("connection")) add_number(out, "%06llu", v->connection);
    else if (IS("topic")) add_number(out, "%05llu", v->topic);
    else if (IS("number")) add_number(out, "%llu", v->number);
    else if (IS("page")) add_number(out, "%llu", v->page);
    else if (IS("beat")) add_number(out, "%llu", v->beat);
    else if (IS("n")) add_number(out, "%llu", v->n);
    else if (IS("size")) add_number(out, "%llu", v->size);
    else if (IS("varint")) add_varint(out, v->size + 8);
    else if (IS("wall")) add_wall(out);
    else if (IS("token")) bytes_add(out, v->token.data, v->token.length);
    else if (IS("stamp")) bytes_add(out, v->stamp.data, v->stamp.length);
    else if (IS("pad")) bytes_add(out, v->pad.data, v->pad.length);
    else if (IS("body")) bytes_add(out, v->body.data, v->body.length);
    else if (IS("changes")) bytes_add(out, v->changes.data, v->changes.length);
    else return 0;
#undef IS
    return 1;
}

void script_expand(struct bytes *out, const struct text *form, const struct values *v) {
    const char *at = form->data, *end = at + form->length;
    while (at < end) {
        const char *brace = memchr(at, '{', (size_t)(end - at));
        if (!brace) brace = end;
        bytes_add(out, at, (size_t)(brace - at));
        at = brace;
        if (at == end) break;
        const char *close = memchr(at, '}', (size_t)(end - at));
        if (close && add_value(out, at + 1, (size_t)(close - at - 1), v)) at = close + 1;
        else bytes_add(out, at++, 1);
    }
}
