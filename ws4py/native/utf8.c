#include "utf8.h"

#include <string.h>

#define IS_CONTINUATION(byte) (((byte) & 0xc0) == 0x80)

/* Return the length of the whole character at `at`, of which four bytes can be looked at; 0 if it is none. */
static inline size_t character(const uint8_t *at)
{
    if (at[0] < 0x80)
        return 1;
    if (at[0] < 0xe0)
        return at[0] >= 0xc2 && IS_CONTINUATION(at[1]) ? 2 : 0;
    if (!IS_CONTINUATION(at[1]) || !IS_CONTINUATION(at[2]))
        return 0;
    if (at[0] < 0xf0) /* no longer than need be, and no surrogate */
        return (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) ? 0 : 3;
    if (!IS_CONTINUATION(at[3]) || at[0] > 0xf4)
        return 0;
    return (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f) ? 0 : 4;
}

/* Take one byte in. Return whether it may stand there. */
static int take(ws4py_utf8 *state, uint8_t byte)
{
    if (state->wanted) {
        if (byte < state->low || byte > state->high)
            return 0;
        state->wanted--;
    } else if (byte >= 0x80) {
        if (byte < 0xc2 || byte > 0xf4)
            return 0;
        state->wanted = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
        state->low = byte == 0xe0 ? 0xa0 : byte == 0xf0 ? 0x90 : 0x80;
        state->high = byte == 0xed ? 0x9f : byte == 0xf4 ? 0x8f : 0xbf;
        return 1;
    }
    state->low = 0x80;
    state->high = 0xbf;
    return 1;
}

size_t ws4py_check_utf8(ws4py_utf8 *state, const uint8_t *data, size_t size, int *valid)
{
    size_t i = 0, begun = 0, length; /* begun: where the current character begins */
    uint64_t words[4];

    *valid = 0;
    for (; i < size && state->wanted; i++)
        if (!take(state, data[i]))
            return 0;
    while (i + 32 <= size) {
        memcpy(words, data + i, 32);
        if (!((words[0] | words[1] | words[2] | words[3]) & UINT64_C(0x8080808080808080))) {
            i += 32;
            continue;
        }
        while (data[i] < 0x80)
            i++;
        /* one by one, until there are two of ASCII */
        for (length = 2; i + 4 <= size && (length > 1 || data[i] >= 0x80); i += length) {
            length = character(data + i);
            if (!length)
                return i;
        }
    }
    for (; i < size; i++) {
        if (!state->wanted)
            begun = i;
        if (!take(state, data[i]))
            return begun;
    }
    *valid = 1;
    return size;
}
