/* The C of the compiled engine in a program of its own, for the compiler's sanitizers to watch:

       cc -g -O1 -fsanitize=thread tests/engine/wire_stress.c ws4py/engine/c/[a-z]*.c ws4py/native/[mpu]*.c -lpthread -lm
       ./a.out SEED

   The main thread is the interpreter: it polls, takes what has landed, and now and then stays away, so that the guard
   comes. Peers, a thread each, send numbered messages and Pings, in pieces of any size; senders send to them. Every
   message must come once and in order, every Ping be answered, and all be written that was sent. */
#define _GNU_SOURCE
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../ws4py/engine/c/wire.h"
#include "../../ws4py/native/masking.h"
#include "../../ws4py/native/parsing.h"

enum { PEERS = 16, MESSAGES = 400, SENDERS = 2, SENT = 2000, TAIL = 1 << 20 };

typedef struct {
    wire_conn *conn;
    int ours, theirs;
    unsigned seed;
    int taken;              /* messages of it that the interpreter has seen */
    uint8_t *tail;          /* bytes that were left to the interpreter, and are no whole frame yet */
    size_t tail_size;
    int pings, pongs, texts;
} link_state;

static wire_core *core;
static link_state links[PEERS];
static int texts_for[PEERS][SENDERS];

static unsigned below(unsigned *seed, unsigned limit)
{
    return (unsigned)rand_r(seed) % limit;
}

static size_t make_frame(uint8_t *to, int opcode, const uint8_t *payload, size_t size, unsigned *seed)
{
    uint8_t key[4] = {(uint8_t)below(seed, 256), 2, 3, 4};
    size_t header = ws4py_write_header(to, (uint8_t)(WS4PY_FIN | opcode), 0x80, size);
    memcpy(to + header, key, 4);
    ws4py_mask(to + header + 4, payload, size, key);
    return header + 4 + size;
}

/* Count what has come at the peer's end. */
static void listen_once(link_state *link, ws4py_parser *parser, int flags)
{
    uint8_t data[4096];
    ssize_t size = recv(link->theirs, data, sizeof(data), flags);
    size_t at = 0;
    ws4py_frame frame;
    static __thread uint8_t head[2 * 4096];
    static __thread size_t kept;
    if (size <= 0)
        return;
    assert(kept + (size_t)size <= sizeof(head));
    memcpy(head + kept, data, (size_t)size);
    kept += (size_t)size;
    for (;;) {
        size_t before = at;
        ws4py_found found = ws4py_next_frame(parser, head, kept, &at, &frame);
        if (found == WS4PY_MORE) {
            at = before;
            break;
        }
        assert(found == WS4PY_FRAME);
        if (frame.begins && (frame.first & 0x0f) == 0x0a)
            link->pongs++;
        else if (frame.begins)
            link->texts++;
    }
    memmove(head, head + at, kept - at);
    kept -= at;
}

static void *peer(void *argument)
{
    link_state *link = argument;
    ws4py_parser parser = {.max_message_size = WS4PY_NO_LIMIT, .max_fragments = WS4PY_NO_LIMIT, .mask_bit = 0};
    uint8_t payload[300], frames[2 * 400];
    int expected = 0;
    for (int number = 0; number < MESSAGES; number++) {
        size_t size, sent = 0, filler = below(&link->seed, 200);
        memset(payload, 0, sizeof(payload));
        memcpy(payload, &number, sizeof(number));
        size = make_frame(frames, 0x02, payload, sizeof(number) + filler, &link->seed);
        if (below(&link->seed, 3) == 0) {
            link->pings++;
            size += make_frame(frames + size, 0x09, payload, below(&link->seed, 126), &link->seed);
        }
        while (sent < size) {
            size_t piece = below(&link->seed, 5) ? size - sent : 1 + below(&link->seed, (unsigned)(size - sent));
            ssize_t count = send(link->theirs, frames + sent, piece, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (count > 0)
                sent += (size_t)count;
            listen_once(link, &parser, MSG_DONTWAIT);
        }
    }
    for (int i = 0; i < SENDERS; i++)
        expected += texts_for[link - links][i];
    while (link->pongs < link->pings || link->texts < expected)
        listen_once(link, &parser, 0);
    assert(link->pongs == link->pings && link->texts == expected);
    shutdown(link->theirs, SHUT_WR);
    return NULL;
}

static void *sender(void *argument)
{
    int number = (int)(intptr_t)argument;
    for (int place = 0; place < PEERS; place++)
        for (int i = 0; i < texts_for[place][number]; i++) {
            int wake = wire_put(core, links[place].conn, 1, "what is sent to a peer", 22);
            assert(wake >= 0);
            if (wake)
                wire_wake(core);
        }
    return NULL;
}

static void see(link_state *link, const uint8_t *payload, size_t size)
{
    int number;
    assert(size >= sizeof(number));
    memcpy(&number, payload, sizeof(number));
    assert(number == link->taken);
    link->taken++;
}

/* What was left to the interpreter: take in the frames that are whole, and have C go on when none is half there. */
static void see_raw(link_state *link, const uint8_t *data, size_t size)
{
    ws4py_parser parser = {.max_message_size = WS4PY_NO_LIMIT, .max_fragments = WS4PY_NO_LIMIT, .mask_bit = 0x80};
    ws4py_frame frame;
    size_t at = 0, done = 0;
    assert(link->tail_size + size <= TAIL);
    memcpy(link->tail + link->tail_size, data, size);
    link->tail_size += size;
    while (ws4py_next_frame(&parser, link->tail, link->tail_size, &at, &frame) == WS4PY_FRAME && frame.first & WS4PY_FIN) {
        uint8_t payload[300], pong[2 + 125];
        ws4py_mask(payload, link->tail + frame.start, frame.size, frame.key);
        if ((frame.first & 0x0f) == 0x09) {
            size_t header = ws4py_write_header(pong, 0x8a, 0, frame.size);
            memcpy(pong + header, payload, frame.size);
            assert(wire_append(core, link->conn, (const char *)pong, header + frame.size) >= 0);
        } else
            see(link, payload, frame.size);
        done = at;
    }
    memmove(link->tail, link->tail + done, link->tail_size - done);
    link->tail_size -= done;
    if (!link->tail_size)
        wire_resume(core, link->conn);
}

static int harvest(void)
{
    char *data;
    size_t size = wire_take(core, &data), at = 0;
    int ended = 0;
    while (at < size) {
        wire_record *record = (wire_record *)(data + at);
        wire_conn *conn = wire_lookup(core, ((uint64_t)record->generation << 32) | record->index);
        link_state *link = conn == NULL ? NULL : conn->object;
        at += sizeof(*record);
        if (record->kind <= WIRE_RAW)
            at += (record->size + 7) & ~(size_t)7;
        if (link == NULL)
            continue;
        if (record->kind <= WIRE_BINARY) {
            wire_taken(core, conn, 1, record->size);
            see(link, (uint8_t *)(record + 1), record->size);
        } else if (record->kind == WIRE_RAW && record->size) {
            wire_taken_raw(core, conn);
            see_raw(link, (uint8_t *)(record + 1), record->size);
        } else if (record->kind == WIRE_MUTED) {
            wire_watch(core, conn, 1);
        } else if (record->kind == WIRE_WROTE) {
            wire_set(core, &conn->told, 0);
        } else { /* the end */
            wire_watch(core, conn, 0);
            wire_detach(core, conn);
            close(link->ours);
            ended++;
        }
    }
    return ended;
}

int main(int count, char **arguments)
{
    unsigned seed = count > 1 ? (unsigned)atoi(arguments[1]) : 1;
    pthread_t peers[PEERS], senders[SENDERS];
    wire_foreign foreign[WIRE_EVENTS];
    int ended = 0, result;
    core = wire_new();
    result = wire_open(core);
    assert(core != NULL && result == 0);
    for (int i = 0; i < PEERS; i++) {
        link_state *link = &links[i];
        int pair[2];
        result = socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
        assert(result == 0);
        fcntl(pair[0], F_SETFL, O_NONBLOCK);
        link->ours = pair[0];
        link->theirs = pair[1];
        link->seed = seed * 1000 + (unsigned)i;
        link->tail = malloc(TAIL);
        link->conn = wire_conn_new();
        link->conn->object = link;
        link->conn->max_outbox = 1 << 20;
        link->conn->max_message = WS4PY_NO_LIMIT;
        link->conn->room = 8;
        link->conn->room_size = 1 << 12;
        result = wire_attach(core, link->conn, link->ours);
        assert(result == 0 && link->tail != NULL);
        wire_watch(core, link->conn, 1);
        for (int j = 0; j < SENDERS; j++)
            texts_for[i][j] = (int)below(&seed, SENT / PEERS);
    }
    for (int i = 0; i < PEERS; i++)
        pthread_create(&peers[i], NULL, peer, &links[i]);
    for (int i = 0; i < SENDERS; i++)
        pthread_create(&senders[i], NULL, sender, (void *)(intptr_t)i);
    while (ended < PEERS) {
        wire_cycle(core, 0.02);
        wire_take_foreign(core, foreign);
        ended += harvest();
        if (below(&seed, 20) == 0)
            usleep(3000); /* a handler that holds the interpreter's lock */
    }
    for (int i = 0; i < SENDERS; i++)
        pthread_join(senders[i], NULL);
    for (int i = 0; i < PEERS; i++) {
        pthread_join(peers[i], NULL);
        assert(links[i].taken == MESSAGES);
        close(links[i].theirs);
        wire_conn_unref(links[i].conn);
        free(links[i].tail);
    }
    wire_close(core);
    assert(core->reliefs > 0);
    wire_unref(core);
    puts("all came");
    return 0;
}
