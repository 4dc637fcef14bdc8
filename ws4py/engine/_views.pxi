"""What Python sees of what C keeps of a connection."""

COUNTED = (
    "bytes_received", "texts_received", "text_bytes_received", "binaries_received", "binary_bytes_received",
    "bytes_sent", "texts_sent", "text_bytes_sent", "binaries_sent", "binary_bytes_sent",
    "pings_sent", "pongs_sent", "closes_sent",
)  # as in wire_traffic
cdef dict PLACES = {name: place for place, name in enumerate(COUNTED)}


cdef class Traffic:
    """What a connection has counted, as it is now: see :class:`ws4py.engine.traffic.Traffic`."""

    cdef ConnectionBase connection

    encoded_from = encoded_to = decoded_from = decoded_to = 0

    def __getattr__(self, name):
        if name not in PLACES:
            raise AttributeError(name)
        return (<uint64_t *>&self.connection.conn.traffic)[<int>PLACES[name]]

    def __setattr__(self, name, uint64_t value):
        (<uint64_t *>&self.connection.conn.traffic)[<int>PLACES[name]] = value

    @property
    def messages_received(self): return self.texts_received + self.binaries_received

    @property
    def messages_sent(self): return self.texts_sent + self.binaries_sent


cdef class Outbox:
    """The outbox of a connection, as :class:`ws4py.engine.outbox.Outbox` is one."""

    cdef wire_core *core  # each with a reference: it may live longer than its connection
    cdef wire_conn *conn

    def __dealloc__(self):
        if self.conn != NULL:
            wire_conn_unref(self.conn)
            wire_unref(self.core)

    @property
    def blocked(self):
        """Whether the kernel takes nothing more for now."""
        return bool(self.conn.blocked)

    @property
    def size(self): return wire_out_size(self.conn)

    @property
    def waiting(self): return wire_out_size(self.conn) != 0

    @property
    def empty(self): return wire_out_size(self.conn) == 0

    def append(self, bytes frame):
        cdef int wake = wire_append(self.core, self.conn, PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame))
        if wake < 0:
            raise MemoryError
        if PyBytes_AS_STRING(frame)[0] & 0x0f == 8:
            wire_set(self.core, &self.conn.closed, 1)
        if wake:
            wire_wake(self.core)

    def give_up(self, bytes last):
        cdef int wake = wire_give_up(self.core, self.conn, PyBytes_AS_STRING(last), PyBytes_GET_SIZE(last))
        if wake < 0:
            raise MemoryError
        if wake:
            wire_wake(self.core)

    def clear(self):
        wire_clear(self.core, self.conn)
