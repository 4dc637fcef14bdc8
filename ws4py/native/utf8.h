/* Whether bytes that come in pieces are UTF-8 (RFC 3629). Needs no Python. */
#ifndef WS4PY_UTF8_H
#define WS4PY_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Where a text has come to; all zeros at its beginning. */
typedef struct {
    uint8_t wanted; /* bytes that the last character lacks */
    uint8_t low;    /* the least that the next of them may be, */
    uint8_t high;   /* and the greatest */
} ws4py_utf8;

/* Check the next `size` bytes. Return how many of them are valid: less than `size` is the place where the first character
   begins that is not; 0 also if that began in an earlier piece. `*valid` says whether all are. */
size_t ws4py_check_utf8(ws4py_utf8 *state, const uint8_t *data, size_t size, int *valid);

#endif
