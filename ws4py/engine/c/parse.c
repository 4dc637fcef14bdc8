/* Whole messages and Pings, taken in as ws4py.streaming and ws4py.engine.reading do it; all else is left to those. */
#include "../../native/masking.h"
#include "../../native/parsing.h"
#include "../../native/utf8.h"
#include "wire.h"

/* How many frames are taken in of one connection in a cycle; TURN_FRAMES of ws4py.engine.reading. */
#define TURN_FRAMES 256

#define PING 0x09
#define PONG 0x0a

static int is_utf8(const uint8_t *data, size_t size)
{
    ws4py_utf8 state = {0, 0, 0};
    int valid;
    return ws4py_check_utf8(&state, data, size, &valid) == size && valid && !state.wanted;
}

/* Answer a Ping; return 0 if that is the interpreter's side's business. */
static int answer(wire_core *core, wire_conn *conn, const uint8_t *payload, const ws4py_frame *frame)
{
    uint8_t pong[2 + 125];
    if (conn->closed || wire_out_size(conn) >= conn->max_outbox)
        return 0;
    size_t header = ws4py_write_header(pong, WS4PY_FIN | PONG, 0, frame->size);
    ws4py_mask(pong + header, payload, frame->size, frame->key);
    if (wire_append_locked(conn, "", 0, (const char *)pong, header + frame->size) < 0)
        return 0;
    conn->traffic.pongs_sent++;
    core->pings_received++;
    return 1;
}

/* Let a message land; return 0 if there is no room, or it is a text that is no UTF-8. */
static int land(wire_core *core, wire_conn *conn, const uint8_t *payload, const ws4py_frame *frame)
{
    wire_arena *arena = &core->arenas[core->landing];
    wire_record *record = (wire_record *)(arena->data + arena->len);
    uint8_t *target = (uint8_t *)(record + 1);
    int text = (frame->first & 0x0f) == WIRE_TEXT;
    if (conn->landed >= conn->room || conn->landed_size >= conn->room_size)
        return 0;
    ws4py_mask(target, payload, frame->size, frame->key);
    if (text && !is_utf8(target, frame->size))
        return 0;
    record->index = conn->index;
    record->generation = conn->generation;
    record->kind = text ? WIRE_TEXT : WIRE_BINARY;
    record->size = (uint32_t)frame->size;
    arena->len += sizeof(wire_record) + ((frame->size + 7) & ~(size_t)7);
    conn->landed++;
    conn->landed_size += frame->size;
    if (text) {
        conn->traffic.texts_received++;
        conn->traffic.text_bytes_received += frame->size;
    } else {
        conn->traffic.binaries_received++;
        conn->traffic.binary_bytes_received += frame->size;
    }
    return 1;
}

size_t wire_parse(wire_core *core, wire_conn *conn, const uint8_t *data, size_t size)
{
    ws4py_parser parser = {.max_message_size = conn->max_message,
                           .max_fragments = WS4PY_NO_LIMIT,
                           .mask_bit = 0x80};
    ws4py_frame frame;
    size_t at = 0, done = 0;
    for (int frames = 0; frames < TURN_FRAMES; frames++) {
        if (ws4py_next_frame(&parser, data, size, &at, &frame) != WS4PY_FRAME)
            break;
        const uint8_t *payload = data + frame.start;
        int taken = 0; /* what is neither here is a part of a message, or for the interpreter's side anyway */
        if (frame.first == (WS4PY_FIN | WIRE_TEXT) || frame.first == (WS4PY_FIN | WIRE_BINARY))
            taken = land(core, conn, payload, &frame);
        else if (frame.first == (WS4PY_FIN | PING))
            taken = answer(core, conn, payload, &frame);
        if (!taken)
            break;
        done = at;
    }
    conn->traffic.bytes_received += done;
    return done;
}
