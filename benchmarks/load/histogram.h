/* Durations in buckets of about 1 % each, so that any number of them costs the same. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

enum { HISTOGRAM_STEPS = 64, HISTOGRAM_BUCKETS = 64 * HISTOGRAM_STEPS };

struct histogram {
    size_t count;
    double longest;
    size_t buckets[HISTOGRAM_BUCKETS];
};

/* Forgets all. */
void histogram_clear(struct histogram *histogram);

/* Adds a duration, in seconds. */
void histogram_add(struct histogram *histogram, double seconds);

/* Returns the duration that a share of them, 0 to 1, does not exceed, in seconds; 0 if there are none. */
double histogram_at(const struct histogram *histogram, double share);

/* Prints the percentiles as members of a JSON object, in microseconds, each with a comma before it. */
void histogram_print(const struct histogram *histogram);

#endif
