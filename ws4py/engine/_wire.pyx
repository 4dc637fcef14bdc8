# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The half of the compiled engine that joins its C to Python: see :mod:`ws4py.engine.compiled`."""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from ws4py.engine.inbox import END
from ws4py.engine.outgoing import Outgoing
from ws4py.messaging import BinaryMessage, TextMessage

cdef extern from "sys/epoll.h" nogil:
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CTL_MOD

cdef int64_t NO_LIMIT = (1 << 63) - 1

cdef enum:
    READ = 1
    WRITE = 2


cdef class Core:
    """The sockets of one engine; and to that a poller, for the other descriptors that it waits for."""

    cdef wire_core *core

    def __cinit__(self):
        self.core = wire_new()
        if self.core == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.core != NULL:
            with nogil:
                wire_close(self.core)
            wire_unref(self.core)

    @property
    def reliefs(self):
        """How often the guard has polled, since the interpreter did not come."""
        return self.core.reliefs

    @property
    def asleep(self):
        """Whether the guard sleeps until it is needed."""
        return not self.core.armed

    def open(self):
        """Begin to wait.

        :raises OSError: if the system has no descriptors left.
        """
        cdef int error = wire_open(self.core)
        if error:
            raise OSError(error, os.strerror(error))

    def after_fork_in_child(self):
        """Leave everything to the parent."""
        wire_after_fork(self.core)

    def take_pings(self):
        """Return how many Pings were answered since this was asked last."""
        cdef uint64_t count
        pthread_mutex_lock(&self.core.mutex)
        count = self.core.pings_received
        self.core.pings_received = 0
        pthread_mutex_unlock(&self.core.mutex)
        return count

    # --- as a poller ---

    def fileno(self):
        return self.core.epoll

    def register(self, int fd, int interest=READ):
        self._control(EPOLL_CTL_ADD, fd, interest)

    def modify(self, int fd, int interest):
        self._control(EPOLL_CTL_MOD, fd, interest)

    def unregister(self, int fd):
        wire_control(self.core, EPOLL_CTL_DEL, fd, 0)

    cdef _control(self, int operation, int fd, int interest):
        cdef uint32_t events = 0
        if fd < 0:
            raise ValueError(f"{fd!r} is not an open file descriptor")
        if interest & READ:
            events |= EPOLLIN
        if interest & WRITE:
            events |= EPOLLOUT
        cdef int error = wire_control(self.core, operation, fd, events)
        if error:
            raise OSError(error, os.strerror(error))

    def poll(self, timeout=None):
        """Have one cycle in C; return what is ready of the other descriptors."""
        cdef double seconds = -1.0 if timeout is None else timeout
        cdef wire_foreign foreign[WIRE_EVENTS]
        cdef int count, i
        with nogil:
            wire_cycle(self.core, seconds)
        count = wire_take_foreign(self.core, foreign)
        if not count:
            return []
        ready = []
        for i in range(count):
            events = foreign[i].events
            if events & ~(EPOLLIN | EPOLLOUT):
                ready.append((foreign[i].fd, READ | WRITE))
            else:
                ready.append((foreign[i].fd, (READ if events & EPOLLIN else 0) | (WRITE if events & EPOLLOUT else 0)))
        return ready

    def release(self):
        """Give back what it waits with."""
        with nogil:
            wire_close(self.core)

    # --- what has landed ---

    def harvest(self, engine):
        """Take what C has read: put messages into inboxes, and have the engine see to all else."""
        cdef char *data
        cdef size_t size = wire_take(self.core, &data), position = 0
        cdef wire_record *record
        cdef wire_conn *conn
        cdef ConnectionBase connection
        cdef list items
        cdef size_t payload
        cdef uint32_t count, index, generation
        while position < size:
            record = <wire_record *>(data + position)
            index, generation = record.index, record.generation
            conn = wire_lookup(self.core, (<uint64_t>generation << 32) | index)
            if record.kind > WIRE_BINARY:
                position += sizeof(wire_record)
                if record.kind == WIRE_RAW:
                    position += (record.size + 7) & ~<size_t>7
                if conn != NULL:
                    connection = <ConnectionBase>conn.object
                    try:
                        self._note(engine, connection, record)
                    except BaseException as error:
                        engine.fail(connection, error)
                continue
            items, payload, count = [], 0, 0
            while record.kind <= WIRE_BINARY and record.index == index and record.generation == generation:
                items.append(new_message(record))
                payload += record.size
                count += 1
                position += sizeof(wire_record) + ((record.size + 7) & ~<size_t>7)
                if position >= size:
                    break
                record = <wire_record *>(data + position)
            if conn != NULL:
                connection = <ConnectionBase>conn.object
                wire_taken(self.core, conn, count, payload)
                try:
                    connection.take_in(engine, items, payload)
                except BaseException as error:
                    engine.fail(connection, error)

    cdef _note(self, engine, ConnectionBase connection, wire_record *record):
        cdef wire_conn *conn = connection.conn
        if record.kind == WIRE_RAW:
            data = PyBytes_FromStringAndSize(<char *>(record + 1), record.size)
            wire_taken_raw(self.core, conn)
            engine.take_raw(connection, data)
        elif record.kind == WIRE_WROTE:
            wire_set(self.core, &conn.told, 0)
            engine.wrote(connection)
        elif record.kind == WIRE_MUTED:
            engine.watch(connection)
        else:
            engine.lose(connection, record.size)


cdef new_message(wire_record *record):
    message = TextMessage.__new__(TextMessage) if record.kind == WIRE_TEXT else BinaryMessage.__new__(BinaryMessage)
    message.data = PyBytes_FromStringAndSize(<char *>(record + 1), record.size)
    return message


include "_views.pxi"


cdef class ConnectionBase:
    """What a connection consists of, and what every message comes by.

    Where the pure one takes the connection's lock for a few assignments, nothing is taken here: no bytecode runs
    between them, so no other thread does.
    """

    cdef wire_core *core  # with a reference of its own: the garbage collector may clear all others first
    cdef wire_conn *conn
    cdef public object engine, limits, closing, keepalive, message_deadline, on_rest, rate, stream, transport, lock, owner
    cdef object inbox_, sender_
    cdef Outbox outbox_
    cdef public int fd, interest
    cdef public long long timer_slot
    cdef public double deadline, opened_at
    cdef public bint dirty, eof_sent, reading_paused, released, scheduled, tcp_ended, watched
    cdef bint read_ended_, send_ended_
    cdef public Py_ssize_t inbox_size
    cdef Py_ssize_t max_inbox_messages, max_inbox_size

    def __cinit__(self, engine, owner, stream, limits):
        self.core = wire_ref((<Core?>engine.core).core)
        self.conn = wire_conn_new()
        if self.conn == NULL:
            raise MemoryError
        self.outbox_ = Outbox.__new__(Outbox)
        self.outbox_.core = wire_ref(self.core)
        self.outbox_.conn = wire_conn_ref(self.conn)
        self.conn.object = <void *>self
        self.conn.max_message = NO_LIMIT if limits.max_message_size is None else limits.max_message_size
        self.conn.max_outbox = limits.max_outbox_size
        self.max_inbox_messages = limits.max_inbox_messages
        self.max_inbox_size = limits.max_inbox_size

    def __dealloc__(self):
        if self.conn != NULL:
            if self.conn.attached:
                with nogil:
                    wire_detach(self.core, self.conn)
            self.conn.object = NULL
            wire_conn_unref(self.conn)
        if self.core != NULL:
            wire_unref(self.core)

    # --- for the engine ---

    def attach(self, int fd):
        """Be read and written by C from now on."""
        if wire_attach(self.core, self.conn, fd) < 0:
            raise MemoryError

    def detach(self):
        """Be it no longer: when this returns, the descriptor is not used any more."""
        with nogil:
            wire_detach(self.core, self.conn)

    def read(self, bint reading):
        """Be read, or not."""
        wire_watch(self.core, self.conn, reading)

    def start_raw(self):
        wire_start_raw(self.core, self.conn)

    def resume(self):
        wire_resume(self.core, self.conn)

    def write(self):
        """Write what waits, as far as the kernel takes it."""
        cdef uint64_t handle = wire_handle(self.conn)
        with nogil:
            wire_write(self.core, handle, 1)

    @property
    def raw(self): return self.conn.raw

    @property
    def inbox_length(self):
        """How many items wait for a worker, in C, too."""
        return self.conn.landed + (0 if self.inbox_ is None else len(<list>self.inbox_))

    @property
    def waiting_size(self):
        """See :attr:`ws4py.engine.connection.Connection.waiting_size`."""
        return self.conn.landed_size + self.inbox_size + self.stream.unfinished_size

    # --- what is kept in C, too ---

    @property
    def outbox(self): return self.outbox_

    @outbox.setter
    def outbox(self, value):
        pass

    @property
    def traffic(self):
        cdef Traffic traffic = Traffic.__new__(Traffic)
        traffic.connection = self
        return traffic

    @traffic.setter
    def traffic(self, value):
        pass

    @property
    def sender(self): return self.sender_
    @sender.setter
    def sender(self, value):
        self.sender_ = value
        wire_set(self.core, &self.conn.has_sender, value is not None)

    @property
    def send_ended(self): return self.send_ended_
    @send_ended.setter
    def send_ended(self, bint value):
        self.send_ended_ = value
        if value:
            wire_set(self.core, &self.conn.closed, 1)

    @property
    def read_ended(self): return self.read_ended_
    @read_ended.setter
    def read_ended(self, bint value):
        self.read_ended_ = value
        wire_set(self.core, &self.conn.deaf, value)

    @property
    def needs_update(self): return bool(self.conn.needs_update)
    @needs_update.setter
    def needs_update(self, bint value):
        wire_set(self.core, &self.conn.needs_update, value)

    @property
    def heard_at(self): return self.conn.heard_at
    @heard_at.setter
    def heard_at(self, double value): self.conn.heard_at = value

    @property
    def active_at(self): return self.conn.active_at
    @active_at.setter
    def active_at(self, double value): self.conn.active_at = value

    @property
    def inbox(self): return self.inbox_
    @inbox.setter
    def inbox(self, value):
        self.inbox_ = value
        self.set_room()

    cdef void set_room(self):
        cdef Py_ssize_t waiting = 0 if self.inbox_ is None else len(<list>self.inbox_)
        wire_set_room(self.core, self.conn, max(0, self.max_inbox_messages - waiting),
                      max(0, self.max_inbox_size - self.inbox_size))

    # --- sending: any thread ---

    cdef bint may_put(self):
        return (self.sender_ is None and not self.conn.closed and self.conn.attached
                and wire_out_size(self.conn) < self.conn.max_outbox)

    cdef was_put(self, int opcode, Py_ssize_t size, int wake):
        """Count a message that was put into the outbox, and wake who is to write it."""
        if wake < 0:
            raise MemoryError
        if opcode == WIRE_TEXT:
            self.conn.traffic.texts_sent += 1
            self.conn.traffic.text_bytes_sent += size
        else:
            self.conn.traffic.binaries_sent += 1
            self.conn.traffic.binary_bytes_sent += size
        if wake:
            wire_wake(self.core)

    def send_message(self, int opcode, bytes payload, timeout=None):
        cdef int wake
        cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
        if self.may_put():
            wake = wire_put(self.core, self.conn, opcode, PyBytes_AS_STRING(payload), size)
            self.was_put(opcode, size, wake)
        else:
            self._send_unusually(self.stream.encode_message(opcode, payload), opcode, size, timeout)

    def offer(self, bytes frame, int opcode, Py_ssize_t size, policy, key=None):
        cdef int wake
        if not self.may_put():
            return Outgoing.offer(self, frame, opcode, size, policy, key)
        wake = wire_append(self.core, self.conn, PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame))
        self.was_put(opcode, size, wake)
        return True

    @property
    def outbox_full(self):
        return self.buffered >= self.conn.max_outbox

    def shrink(self):
        with self.lock:
            if self.sender_ is not None and self.sender_.idle:
                self.sender = None

    # --- callbacks: a worker, one at a time ---

    cdef bint is_stalled(self):
        if self.sender_ is None and wire_out_size(self.conn) < self.conn.max_outbox:
            return False
        return self.stalled

    cdef bint put_on_queue(self):
        if self.scheduled or self.inbox_ is None:
            return False
        if self.is_stalled():
            wire_set(self.core, &self.conn.needs_update, 1)
            if self.is_stalled():  # all may have been written before that was said
                return False
        self.scheduled = True
        return True

    def _schedule(self):
        return self.put_on_queue()

    def schedule(self):
        return self.put_on_queue()

    def take(self):
        if self.inbox_ is None or self.is_stalled():
            return None
        cdef object items = self.inbox_
        self.inbox_ = None
        self.inbox_size = 0
        wire_set_room(self.core, self.conn, self.max_inbox_messages, self.max_inbox_size)
        if self.reading_paused:
            self.engine.mark_dirty(self)
        return items

    def put_back(self, list items):
        cdef Py_ssize_t size = 0
        for item in items:
            size += len(getattr(item, "data", b""))
        if self.inbox_ is None:
            self.inbox_ = items
        else:
            (<list>self.inbox_)[0:0] = items
        self.inbox_size += size
        self.set_room()

    def rest(self):
        cdef bint more
        self.scheduled = False
        more = self.inbox_ is not None and self.put_on_queue()
        if not more and self.on_rest is not None and not self.scheduled:
            self.on_rest()
        return more

    # --- reading: the thread that polls ---

    def deliver(self, list items, Py_ssize_t size):
        self.put(items, size)
        return not self.scheduled and self.put_on_queue()

    def deliver_end(self):
        self.put([END], 0)
        return self.put_on_queue()

    cdef void put(self, list items, Py_ssize_t size):
        if self.inbox_ is None:
            self.inbox_ = items
        else:
            (<list>self.inbox_).extend(items)
        self.inbox_size += size
        if len(<list>self.inbox_) >= self.max_inbox_messages or self.inbox_size >= self.max_inbox_size:
            self.reading_paused = True
            wire_set(self.core, &self.conn.needs_update, 1)
        self.set_room()

    cdef take_in(self, engine, list items, Py_ssize_t size):
        """Put messages that C has read into the inbox."""
        if self.read_ended_:
            return
        self.conn.active_at = self.conn.heard_at
        self.put(items, size)
        if not self.scheduled and self.put_on_queue():
            engine.ready.append(self.owner)
        if self.reading_paused:
            engine.count_limit("inbox")
            engine.watch(self)
