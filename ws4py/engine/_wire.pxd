from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "c/wire.h" nogil:
    enum:
        WIRE_TEXT
        WIRE_BINARY
        WIRE_RAW
        WIRE_LOST
        WIRE_WROTE
        WIRE_MUTED
        WIRE_EVENTS

    ctypedef struct wire_record:
        uint32_t index, generation
        uint32_t kind, size

    ctypedef struct wire_traffic:
        uint64_t bytes_received, texts_received, text_bytes_received, binaries_received, binary_bytes_received
        uint64_t bytes_sent, texts_sent, text_bytes_sent, binaries_sent, binary_bytes_sent
        uint64_t pings_sent, pongs_sent, closes_sent

    ctypedef struct wire_conn:
        int fd
        uint32_t index, generation
        void *object
        double heard_at, active_at
        uint8_t attached, raw, blocked, broken, told, needs_update, has_sender, closed, deaf
        uint8_t writing
        uint32_t landed, landed_raw, room
        size_t room_size, landed_size, max_outbox
        int64_t max_message
        wire_traffic traffic

    ctypedef struct wire_foreign:
        int fd
        uint32_t events

    ctypedef struct pthread_mutex_t "pthread_mutex_t":
        pass

    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)

    ctypedef struct wire_core:
        pthread_mutex_t mutex
        int epoll, eventfd, armed
        uint64_t pings_received, reliefs

    wire_core *wire_new()
    int wire_open(wire_core *)
    void wire_close(wire_core *)
    wire_core *wire_ref(wire_core *)
    void wire_unref(wire_core *)
    wire_conn *wire_conn_new()
    wire_conn *wire_conn_ref(wire_conn *)
    void wire_conn_unref(wire_conn *)
    int wire_attach(wire_core *, wire_conn *, int)
    void wire_detach(wire_core *, wire_conn *)
    wire_conn *wire_lookup(wire_core *, uint64_t)
    uint64_t wire_handle(const wire_conn *)
    void wire_watch(wire_core *, wire_conn *, int)
    void wire_resume(wire_core *, wire_conn *)
    void wire_start_raw(wire_core *, wire_conn *)
    size_t wire_take(wire_core *, char **)
    int wire_take_foreign(wire_core *, wire_foreign *)
    void wire_set_room(wire_core *, wire_conn *, uint32_t, size_t)
    void wire_taken(wire_core *, wire_conn *, uint32_t, size_t)
    void wire_taken_raw(wire_core *, wire_conn *)
    void wire_set(wire_core *, uint8_t *, int)
    void wire_after_fork(wire_core *)
    void wire_wake(wire_core *)
    size_t wire_out_size(const wire_conn *)
    int wire_put(wire_core *, wire_conn *, int, const char *, size_t)
    int wire_append(wire_core *, wire_conn *, const char *, size_t)
    int wire_give_up(wire_core *, wire_conn *, const char *, size_t)
    void wire_clear(wire_core *, wire_conn *)
    void wire_write(wire_core *, uint64_t, int)
    void wire_cycle(wire_core *, double)
    int wire_control(wire_core *, int, int, uint32_t)
