/* Counts of times in ns, in buckets of a 64th of their power of two: an error below 1.6 %. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { SUB = 64, BUCKETS = 59 * SUB };

struct histogram {
    uint64_t counts[BUCKETS], count, most;
    double sum;
};

static inline void histogram_clear(struct histogram *h) { memset(h, 0, sizeof *h); }

static inline void histogram_add(struct histogram *h, uint64_t ns) {
    unsigned at = (unsigned)ns;
    if (ns >= SUB) {
        unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - 6u;
        at = (shift + 1) * SUB + (unsigned)((ns >> shift) - SUB);
    }
    h->counts[at]++;
    h->count++;
    h->sum += (double)ns;
    if (ns > h->most) h->most = ns;
}

/* The time in ms that a share of all (0 to 1) do not exceed. */
static inline double histogram_at(const struct histogram *h, double share) {
    uint64_t wanted = (uint64_t)(share * (double)h->count + 0.5), seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += h->counts[i];
        if (seen && seen >= wanted) {
            uint64_t high = i < SUB ? i : (uint64_t)(i % SUB + SUB + 1) << (i / SUB - 1);
            return (double)(high < h->most ? high : h->most) / 1e6;
        }
    }
    return 0;
}

static inline void histogram_print(const struct histogram *h) {
    printf("\"p50_ms\": %.4f, \"p90_ms\": %.4f, \"p99_ms\": %.4f, \"p999_ms\": %.4f, \"max_ms\": %.4f, \"mean_ms\": %.4f",
           histogram_at(h, 0.5), histogram_at(h, 0.9), histogram_at(h, 0.99), histogram_at(h, 0.999),
           (double)h->most / 1e6, h->count ? h->sum / (double)h->count / 1e6 : 0);
}

#endif
