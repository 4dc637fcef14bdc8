#include "masking.h"

#include <string.h>

void ws4py_mask(uint8_t *to, const uint8_t *from, size_t size, const uint8_t key[4])
{
    uint64_t wide, word;
    size_t i = 0;

    memcpy(&wide, key, 4);
    memcpy((uint8_t *)&wide + 4, key, 4);
    for (; i + 8 <= size; i += 8) { /* memcpy: neither place need be aligned */
        memcpy(&word, from + i, 8);
        word ^= wide;
        memcpy(to + i, &word, 8);
    }
    for (; i < size; i++)
        to[i] = from[i] ^ key[i & 3];
}
