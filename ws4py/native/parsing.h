/* The headers of frames, and their order (RFC 6455, section 5), in one direction of a connection. Needs no Python.

   This finds frames, and applies every rule that can be told from the headers; it copies and unmasks nothing. What
   ws4py.pureframing.FrameParser does is the specification. */
#ifndef WS4PY_PARSING_H
#define WS4PY_PARSING_H

#include <stddef.h>
#include <stdint.h>

#define WS4PY_FIN 0x80
#define WS4PY_RSV1 0x40
#define WS4PY_NO_LIMIT INT64_MAX

typedef struct {
    int64_t max_message_size; /* payload bytes in a message, or WS4PY_NO_LIMIT */
    int64_t max_fragments;    /* frames in a message, or WS4PY_NO_LIMIT */
    int64_t fragments;        /* frames of the current message; 0 between messages */
    int64_t size;             /* payload bytes that those announced */
    int64_t extra;            /* what the message may have on the wire beyond the limit */
    int64_t remaining;        /* payload bytes of the current data frame still to come */
    uint8_t key[4];           /* its masking key, turned to where the payload goes on */
    uint8_t fin;              /* its FIN bit */
    uint8_t mask_bit;         /* WS4PY_FIN's place in the second byte: 0x80 on a server, 0 on a client */
    uint8_t rsv1;             /* whether the first frame of a message may have RSV1 */
} ws4py_parser;

/* A frame, or what has come of a data frame's payload. */
typedef struct {
    uint8_t first;  /* the first byte; of a part as of a fragment */
    uint8_t begins; /* whether a frame begins here; else it goes on */
    uint8_t key[4]; /* to unmask with, if the parser has a mask bit */
    size_t start;   /* of the payload */
    size_t size;    /* of it, as far as it is there */
} ws4py_frame;

typedef enum {
    WS4PY_FRAME, /* there is one */
    WS4PY_MORE,  /* it goes on with bytes that are still to come; those from `at` on are to be kept until then */
    /* A rule is broken; nothing may be read any more. */
    WS4PY_RESERVED_OPCODE,
    WS4PY_RESERVED_BIT,
    WS4PY_FRAGMENTED_CONTROL,
    WS4PY_NOT_MASKED,
    WS4PY_MASKED,
    WS4PY_LONG_CONTROL,
    WS4PY_LENGTH_OVERFLOW,
    WS4PY_LENGTH_NOT_SHORTEST,
    WS4PY_MESSAGE_NOT_ENDED,
    WS4PY_NOTHING_TO_CONTINUE,
    WS4PY_MESSAGE_TOO_BIG,
    WS4PY_TOO_MANY_FRAGMENTS
} ws4py_found;

/* Find the next frame in `size` bytes of `data` from `*at` on, and move `*at` behind it. */
ws4py_found ws4py_next_frame(ws4py_parser *parser, const uint8_t *data, size_t size, size_t *at, ws4py_frame *frame);

/* Write a frame's header without its key: 2, 4 or 10 bytes. Return how many. */
size_t ws4py_write_header(uint8_t *to, uint8_t first, uint8_t mask_bit, uint64_t size);

#endif
