/* Masking (RFC 6455, section 5.3). Needs no Python. */
#ifndef WS4PY_MASKING_H
#define WS4PY_MASKING_H

#include <stddef.h>
#include <stdint.h>

/* Write `size` bytes of `from`, masked or unmasked with `key`, to `to`: the same place, or one that does not overlap. */
void ws4py_mask(uint8_t *to, const uint8_t *from, size_t size, const uint8_t key[4]);

#endif
