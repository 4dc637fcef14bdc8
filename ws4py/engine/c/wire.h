/* The compiled part of an engine: many plain sockets, waited for, read, parsed and written without the interpreter.
 *
 * Nothing here needs Python. A connection is in a table, by its index; a handle is its index and its generation, so that
 * what is old reaches no stranger. What was read lands as records in an arena, in the order in which it came, until the
 * interpreter takes it.
 *
 * One thread at a time has the role of polling: one that the interpreter sent, in wire_cycle(), or the guard, a thread
 * of ours that looks after the sockets while the interpreter is kept from it. One mutex guards all that is shared; it is
 * held for assignments and copies only, never over a system call, and never by who waits for the interpreter's lock. Who
 * makes a system call for a connection has marked it busy meanwhile: so its descriptor stays what it is.
 */
#ifndef WS4PY_WIRE_H
#define WS4PY_WIRE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* Kinds of records. Those of messages are the opcodes. */
enum {
    WIRE_TEXT = 1,     /* the payload of a whole text message, checked and unmasked */
    WIRE_BINARY = 2,   /* the payload of a whole binary message, unmasked */
    WIRE_RAW = 16,     /* bytes as they came, for the parser of the interpreter's side; none at the end of the stream */
    WIRE_LOST = 17,    /* the connection is broken; the size is the error's number */
    WIRE_WROTE = 18,   /* something was written of a connection that asked to be told */
    WIRE_MUTED = 19    /* it is not read any more, for its inbox or its outbox is full: it is to be looked at */
};

typedef struct {
    uint32_t index, generation;
    uint32_t kind, size;
    /* the payload follows, and what makes it a multiple of 8 bytes */
} wire_record;

typedef struct {
    uint64_t bytes_received, texts_received, text_bytes_received, binaries_received, binary_bytes_received;
    uint64_t bytes_sent, texts_sent, text_bytes_sent, binaries_sent, binary_bytes_sent;
    uint64_t pings_sent, pongs_sent, closes_sent;
} wire_traffic;

typedef struct {
    int fd, references;
    uint32_t index, generation;
    uint32_t interest;      /* what the epoll watches for; by who has marked it busy */
    void *object;           /* whom it belongs to, for the interpreter's side alone */
    double heard_at, active_at;
    uint8_t attached;       /* it is in the table */
    uint8_t busy;           /* a thread makes a system call for it */
    uint8_t writing;        /* namely to write what was taken of its outbox */
    uint8_t deaf;           /* what comes is thrown away; its end is told all the same */
    uint8_t dirty;          /* it is on the list of those to be looked at */
    uint8_t watched;        /* it is to be read */
    uint8_t muted;          /* but not now: the interpreter's side has to look at it first */
    uint8_t raw;            /* what comes is not parsed here */
    uint8_t blocked;        /* the kernel takes nothing more for now */
    uint8_t broken;         /* it was told that it is */
    uint8_t told;           /* a WIRE_WROTE of it waits to be taken */
    uint8_t needs_update;   /* the interpreter's side is to be told when something was written */
    uint8_t has_sender;     /* the same, for another reason */
    uint8_t closed;         /* a Close is in the outbox, or nothing may be sent: no Ping is answered */
    uint8_t cut;            /* what is being written was given up meanwhile, but for the end of a frame */
    uint8_t cleared;        /* what is being written was thrown away meanwhile */
    uint32_t landed_raw;    /* records of it that wait to be taken */
    uint32_t landed;        /* messages likewise, and their bytes */
    size_t landed_size;
    uint32_t room;          /* how many messages there may be, and how many bytes of them */
    size_t room_size;
    size_t max_outbox;
    int64_t max_message;    /* of a message's payload */
    size_t pending;         /* bytes of the outbox that are not written; read without the mutex, too */
    char *out;              /* frames that wait to be written */
    size_t out_len, out_cap;
    char *cur;              /* frames of which the first is being written, or is half written */
    size_t cur_len, cur_off;
    wire_traffic traffic;
} wire_conn;

typedef struct {
    uint64_t *items;
    size_t len, cap;
} wire_list;

typedef struct {
    char *data;
    size_t len, cap;
} wire_arena;

typedef struct {
    int fd;
    uint32_t events;
} wire_foreign;

#define WIRE_EVENTS 512
#define WIRE_FOREIGN ((uint64_t)1 << 63)    /* of a handle: it is a descriptor that is not in the table */

typedef struct wire_core wire_core;

struct wire_core {
    wire_core *next;            /* of all that there are, for forks */
    pthread_mutex_t mutex;
    pthread_cond_t idle;        /* a connection is not busy any more, or nobody polls */
    int references;
    int epoll, eventfd;
    int polling;                /* somebody polls */
    int sleeping;               /* and it waits, or is about to */
    wire_conn **table;
    uint32_t table_len, free_len;
    uint32_t *free_places;
    uint32_t *generations;
    wire_list dirty, looking;   /* to be looked at; and those that the one who polls is just looking at */
    wire_arena arenas[2];
    int landing;                /* which of them is landed in */
    wire_foreign foreign[WIRE_EVENTS];
    int foreign_len;
    uint64_t pings_received;
    char *buffer;               /* of who polls */
    /* the guard */
    pthread_t guard;
    pthread_cond_t alarm;
    int guarding, ending, armed;
    double polled_at;
    uint64_t reliefs;
};

#define WIRE_RECEIVE (7 * 16384)

/* core.c: the table, and what the interpreter's side asks for */
wire_core *wire_new(void);
int wire_open(wire_core *core);         /* 0, or an error's number */
void wire_close(wire_core *core);
wire_core *wire_ref(wire_core *core);    /* who refers to it has the interpreter's lock */
void wire_unref(wire_core *core);
wire_conn *wire_conn_new(void);
wire_conn *wire_conn_ref(wire_conn *conn);      /* likewise */
void wire_conn_unref(wire_conn *conn);
int wire_attach(wire_core *core, wire_conn *conn, int fd);      /* 0, or -1 without memory */
void wire_detach(wire_core *core, wire_conn *conn);             /* waits until no thread uses its descriptor */
wire_conn *wire_lookup(wire_core *core, uint64_t handle);       /* the mutex is held, or the interpreter's lock */
uint64_t wire_handle(const wire_conn *conn);
void wire_watch(wire_core *core, wire_conn *conn, int reading);
void wire_resume(wire_core *core, wire_conn *conn);             /* parse again, if nothing raw waits to be taken */
void wire_start_raw(wire_core *core, wire_conn *conn);
size_t wire_take(wire_core *core, char **data);                 /* what has landed; the last one is overwritten then */
int wire_take_foreign(wire_core *core, wire_foreign *into);
void wire_set_room(wire_core *core, wire_conn *conn, uint32_t room, size_t size);
void wire_taken(wire_core *core, wire_conn *conn, uint32_t messages, size_t size);
void wire_taken_raw(wire_core *core, wire_conn *conn);
void wire_set(wire_core *core, uint8_t *flag, int value);       /* of a connection, seen before what is asked next */
void wire_after_fork(wire_core *core);
int wire_push(wire_core *core, wire_conn *conn);    /* the mutex is held: have it looked at; 1 if a sleeper is to be woken */
void wire_wake(wire_core *core);
double wire_now(void);      /* of the monotonic clock, in seconds */
void wire_land(wire_core *core, wire_conn *conn, uint32_t kind, uint32_t size, const void *payload);
int wire_reserve(wire_core *core, size_t size);     /* 0, or -1 without memory */

int wire_control(wire_core *core, int operation, int fd, uint32_t events);  /* 0, or an error's number */

/* outbox.c */
size_t wire_out_size(const wire_conn *conn);
int wire_put(wire_core *core, wire_conn *conn, int opcode, const char *payload, size_t size);  /* a frame; see below */
int wire_append(wire_core *core, wire_conn *conn, const char *frame, size_t size);  /* 0, 1: wake, or -1: no memory */
int wire_append_locked(wire_conn *conn, const char *header, size_t header_size, const char *payload, size_t size);
int wire_give_up(wire_core *core, wire_conn *conn, const char *last, size_t size);
void wire_clear(wire_core *core, wire_conn *conn);
void wire_write(wire_core *core, uint64_t handle, int writable);
void wire_reconcile(wire_core *core, wire_conn *conn);  /* the mutex is held, and the connection marked busy */

/* parse.c: take in whole messages and Pings from the beginning of data, as far as there is room for them; return how
 * many bytes those are: what follows is for the interpreter's side. The mutex is held, and memory reserved. */
size_t wire_parse(wire_core *core, wire_conn *conn, const uint8_t *data, size_t size);

/* cycle.c */
void wire_cycle(wire_core *core, double timeout);   /* in seconds; below 0 is for ever */
void wire_guard_start(wire_core *core);
void wire_guard_stop(wire_core *core);

#endif
