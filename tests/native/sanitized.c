/* The C files of ws4py/native in a program of their own, for the compiler's sanitizers to watch:

       cc -g -O1 -fsanitize=address,undefined -Iws4py/native tests/native/sanitized.c ws4py/native/[mpu]*.c
       ./a.out SEED ROUNDS

   A round makes bytes from the seed and looks at them whole and in pieces, each in memory of exactly its size. Both must
   come to the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "masking.h"
#include "parsing.h"
#include "utf8.h"

static uint64_t state;

static uint64_t below(uint64_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % limit;
}

static void fail(const char *what, uint64_t round)
{
    printf("round %llu: %s\n", (unsigned long long)round, what);
    exit(1);
}

static void *exactly(const void *data, size_t size)
{
    void *copy = malloc(size ? size : 1);
    if (size)
        memcpy(copy, data, size);
    return copy;
}

/* What was found: a hash of it, and how it ended. */
typedef struct {
    uint64_t hash;
    ws4py_found end;
} outcome;

static void add(outcome *seen, const uint8_t *data, size_t size)
{
    size_t i;
    for (i = 0; i < size; i++)
        seen->hash = (seen->hash ^ data[i]) * UINT64_C(1099511628211);
}

static void look_at(outcome *seen, const ws4py_parser *parser, const uint8_t *data, const ws4py_frame *frame)
{
    uint8_t *payload = malloc(frame->size ? frame->size : 1), marks[2] = {'b', frame->first & 0x7f};

    if (parser->mask_bit) {
        ws4py_mask(payload, data + frame->start, frame->size, frame->key);
        ws4py_mask(payload, payload, frame->size, frame->key);
        if (frame->size && memcmp(payload, data + frame->start, frame->size))
            fail("masked twice is not what it was", 0);
        ws4py_mask(payload, payload, frame->size, frame->key);
    } else if (frame->size) {
        memcpy(payload, data + frame->start, frame->size);
    }
    if (frame->begins)
        add(seen, marks, 2);
    add(seen, payload, frame->size);
    if (frame->first & WS4PY_FIN)
        add(seen, (const uint8_t *)"e", 1);
    free(payload);
}

static outcome parse(ws4py_parser parser, const uint8_t *wire, size_t size, size_t step)
{
    outcome seen = {UINT64_C(14695981039346656037), WS4PY_MORE};
    uint8_t *kept = malloc(1), *data;
    size_t kept_size = 0, position, piece, at;
    ws4py_frame frame;

    for (position = 0; position < size && seen.end == WS4PY_MORE; position += piece) {
        piece = size - position < step ? size - position : step;
        data = malloc(kept_size + piece);
        memcpy(data, kept, kept_size);
        memcpy(data + kept_size, wire + position, piece);
        free(kept);
        at = 0;
        while ((seen.end = ws4py_next_frame(&parser, data, kept_size + piece, &at, &frame)) == WS4PY_FRAME)
            look_at(&seen, &parser, data, &frame);
        kept_size += piece - at;
        kept = exactly(data + at, kept_size);
        free(data);
    }
    free(kept);
    return seen;
}

static size_t make_wire(uint8_t *wire, size_t room, const ws4py_parser *parser)
{
    static const uint8_t firsts[] = {0x81, 0x82, 0x01, 0x02, 0x00, 0x00, 0x80, 0x80, 0x89, 0x8a, 0x88, 0xc1, 0x41, 0x83};
    size_t size = 0, length, payload, i;

    while (size + 14 < room && below(12)) {
        payload = below(6) ? below(140) : below(5) ? below(3000) : 65530 + below(12);
        if (size + 14 + payload > room)
            break;
        length = ws4py_write_header(wire + size, firsts[below(sizeof firsts)], parser->mask_bit, payload);
        size += length;
        for (i = parser->mask_bit ? 4 + payload : payload; i; i--)
            wire[size++] = (uint8_t)below(256);
    }
    if (size && !below(3))
        wire[below(size)] = (uint8_t)below(256);
    return size && !below(4) ? below(size) : size;
}

static void check_frames(uint64_t round)
{
    static uint8_t buffer[200000];
    ws4py_parser parser;
    outcome whole, cut;
    uint8_t *wire;
    size_t size;

    memset(&parser, 0, sizeof parser);
    parser.mask_bit = below(2) ? 0x80 : 0;
    parser.rsv1 = (uint8_t)below(2);
    parser.max_message_size = below(2) ? WS4PY_NO_LIMIT : (int64_t)below(400);
    parser.max_fragments = below(2) ? WS4PY_NO_LIMIT : (int64_t)below(6);
    size = make_wire(buffer, sizeof buffer, &parser);
    wire = exactly(buffer, size);
    whole = parse(parser, wire, size, size ? size : 1);
    cut = parse(parser, wire, size, 1 + below(below(2) ? 20 : 5000));
    if (whole.hash != cut.hash || whole.end != cut.end)
        fail("the cuts make a difference to frames", round);
    free(wire);
}

static size_t make_text(uint8_t *text, size_t room)
{
    static const char *const parts[] = {"a", "plain text ", "\xc3\xa9", "\xe6\xbc\xa2", "\xf0\x9f\x98\x80", "\xed\x9f\xbf"};
    size_t size = 0, length;
    const char *part;

    while (size + 16 < room && below(60)) {
        part = parts[below(sizeof parts / sizeof *parts)];
        length = strlen(part);
        memcpy(text + size, part, length);
        size += length;
    }
    if (size && below(2))
        text[below(size)] = (uint8_t)below(256);
    return size;
}

static void check_text(uint64_t round)
{
    uint8_t buffer[1000], *text, *piece;
    ws4py_utf8 whole = {0, 0, 0}, cut = {0, 0, 0};
    size_t size = make_text(buffer, sizeof buffer), step = 1 + below(50), at, length;
    int valid, cut_valid = 1;

    text = exactly(buffer, size);
    ws4py_check_utf8(&whole, text, size, &valid);
    for (at = 0; at < size && cut_valid; at += length) {
        length = size - at < step ? size - at : step;
        piece = exactly(text + at, length);
        ws4py_check_utf8(&cut, piece, length, &cut_valid);
        free(piece);
    }
    if (valid != cut_valid || (valid && whole.wanted != cut.wanted))
        fail("the cuts make a difference to a text", round);
    free(text);
}

int main(int count, char **arguments)
{
    uint64_t round, rounds;

    if (count != 3)
        return 2;
    state = strtoull(arguments[1], NULL, 10) * 2 + 1;
    rounds = strtoull(arguments[2], NULL, 10);
    for (round = 0; round < rounds; round++) {
        check_frames(round);
        check_text(round);
    }
    printf("%llu rounds\n", (unsigned long long)rounds);
    return 0;
}
