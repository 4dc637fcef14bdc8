#include "parsing.h"

#include <string.h>

static int64_t plus(int64_t a, int64_t b) /* neither is far below 0 */
{
    return a > INT64_MAX - b ? INT64_MAX : a + b;
}

/* Is there anything wrong with a first byte? */
static ws4py_found check_first(const ws4py_parser *parser, uint8_t first)
{
    uint8_t opcode = first & 0x0f, reserved = first & 0x70;

    if (opcode > 0x0a || (opcode > 0x02 && opcode < 0x08))
        return WS4PY_RESERVED_OPCODE;
    if (reserved && !(reserved == WS4PY_RSV1 && parser->rsv1 && (opcode == 0x01 || opcode == 0x02)))
        return WS4PY_RESERVED_BIT;
    if (opcode & 0x08 && !(first & WS4PY_FIN))
        return WS4PY_FRAGMENTED_CONTROL;
    return WS4PY_FRAME;
}

/* The rules about a data frame's place in its message, and the limits of the message. */
static ws4py_found enter(ws4py_parser *parser, uint8_t first, int64_t size)
{
    int64_t limit = parser->max_message_size, fragments = parser->fragments;

    if (first & 0x0f) {
        if (fragments)
            return WS4PY_MESSAGE_NOT_ENDED;
        parser->extra = first & WS4PY_RSV1 && limit != WS4PY_NO_LIMIT ? (limit >> 2) + 1024 : 0;
    } else {
        if (!fragments)
            return WS4PY_NOTHING_TO_CONTINUE;
        size = plus(size, parser->size);
    }
    if (limit != WS4PY_NO_LIMIT && size > plus(limit, parser->extra))
        return WS4PY_MESSAGE_TOO_BIG;
    if (first & WS4PY_FIN) {
        parser->fragments = parser->size = 0;
        return WS4PY_FRAME;
    }
    if (parser->max_fragments != WS4PY_NO_LIMIT && fragments + 1 >= parser->max_fragments)
        return WS4PY_TOO_MANY_FRAGMENTS;
    parser->fragments = fragments + 1;
    parser->size = size;
    return WS4PY_FRAME;
}

static void turn_key(uint8_t key[4], const uint8_t from[4], size_t count)
{
    uint8_t turned[4];
    size_t i;

    for (i = 0; i < 4; i++)
        turned[i] = from[(count + i) & 3];
    memcpy(key, turned, 4);
}

static void go_on(ws4py_parser *parser, size_t there, size_t *at, ws4py_frame *frame)
{
    size_t taken = (uint64_t)parser->remaining < there ? (size_t)parser->remaining : there;

    frame->begins = 0;
    frame->start = *at;
    frame->size = taken;
    memcpy(frame->key, parser->key, 4);
    parser->remaining -= (int64_t)taken;
    frame->first = parser->remaining ? 0 : parser->fin;
    turn_key(parser->key, frame->key, taken);
    *at += taken;
}

ws4py_found ws4py_next_frame(ws4py_parser *parser, const uint8_t *data, size_t size, size_t *at, ws4py_frame *frame)
{
    const uint8_t *head = data + *at;
    size_t there = size - *at, length = 2, i;
    uint64_t announced;
    ws4py_found found;

    if (parser->remaining) {
        if (!there)
            return WS4PY_MORE;
        go_on(parser, there, at, frame);
        return WS4PY_FRAME;
    }
    if (there < 2)
        return WS4PY_MORE;
    found = check_first(parser, head[0]);
    if (found != WS4PY_FRAME)
        return found;
    if ((head[1] & 0x80) != parser->mask_bit)
        return parser->mask_bit ? WS4PY_NOT_MASKED : WS4PY_MASKED;
    announced = head[1] & 0x7f;
    if (announced > 125) {
        if (head[0] & 0x08)
            return WS4PY_LONG_CONTROL;
        length = announced == 126 ? 4 : 10;
        if (there < length)
            return WS4PY_MORE;
        announced = 0;
        for (i = 2; i < length; i++)
            announced = announced << 8 | head[i];
        if (announced > INT64_MAX)
            return WS4PY_LENGTH_OVERFLOW;
        if (announced < (length == 4 ? 126 : 65536))
            return WS4PY_LENGTH_NOT_SHORTEST;
    }
    if (parser->mask_bit) {
        length += 4;
        if (there < length)
            return WS4PY_MORE;
        memcpy(frame->key, head + length - 4, 4);
    }
    there -= length;
    if (head[0] & 0x08) {
        if (there < announced)
            return WS4PY_MORE;
    } else {
        found = enter(parser, head[0], (int64_t)announced);
        if (found != WS4PY_FRAME)
            return found;
    }
    frame->first = head[0];
    frame->begins = 1;
    frame->start = *at + length;
    if (there < announced) {
        frame->first &= (uint8_t)~WS4PY_FIN;
        frame->size = there;
        parser->fin = head[0] & WS4PY_FIN;
        parser->remaining = (int64_t)(announced - there);
        if (parser->mask_bit)
            turn_key(parser->key, frame->key, there);
    } else {
        frame->size = (size_t)announced;
    }
    *at = frame->start + frame->size;
    return WS4PY_FRAME;
}

size_t ws4py_write_header(uint8_t *to, uint8_t first, uint8_t mask_bit, uint64_t size)
{
    int shift;
    size_t length = 2;

    to[0] = first;
    if (size < 126) {
        to[1] = mask_bit | (uint8_t)size;
        return 2;
    }
    to[1] = mask_bit | (size < 65536 ? 126 : 127);
    for (shift = size < 65536 ? 8 : 56; shift >= 0; shift -= 8)
        to[length++] = (uint8_t)(size >> shift);
    return length;
}
