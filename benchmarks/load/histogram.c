#include "histogram.h"

#include <stdio.h>
#include <string.h>

/* A bucket is the place of a number's highest bit and the six bits below it. */
static size_t bucket_of(uint64_t nanoseconds)
{
    if (nanoseconds < HISTOGRAM_STEPS)
        return nanoseconds;
    int shift = 63 - __builtin_clzll(nanoseconds) - 6;
    return (size_t)(shift + 1) * HISTOGRAM_STEPS + ((nanoseconds >> shift) - HISTOGRAM_STEPS);
}

/* The middle of a bucket, in seconds. */
static double value_of(size_t bucket)
{
    if (bucket < HISTOGRAM_STEPS)
        return bucket * 1e-9;
    int shift = bucket / HISTOGRAM_STEPS - 1;
    uint64_t least = (uint64_t)(bucket % HISTOGRAM_STEPS + HISTOGRAM_STEPS) << shift;
    return (least + ((uint64_t)1 << shift) / 2) * 1e-9;
}

void histogram_clear(struct histogram *histogram)
{
    memset(histogram, 0, sizeof *histogram);
}

void histogram_add(struct histogram *histogram, double seconds)
{
    if (seconds < 0)
        seconds = 0;
    histogram->buckets[bucket_of((uint64_t)(seconds * 1e9))]++;
    histogram->count++;
    if (seconds > histogram->longest)
        histogram->longest = seconds;
}

double histogram_at(const struct histogram *histogram, double share)
{
    size_t wanted = (size_t)(share * histogram->count), seen = 0;
    if (wanted >= histogram->count)
        return histogram->longest;
    for (size_t bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        seen += histogram->buckets[bucket];
        if (seen > wanted)
            return value_of(bucket) < histogram->longest ? value_of(bucket) : histogram->longest;
    }
    return histogram->longest;
}

void histogram_print(const struct histogram *histogram)
{
    printf(", \"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f",
           histogram_at(histogram, 0.5) * 1e6, histogram_at(histogram, 0.9) * 1e6,
           histogram_at(histogram, 0.99) * 1e6, histogram_at(histogram, 0.999) * 1e6, histogram->longest * 1e6);
}
