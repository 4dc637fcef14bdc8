# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Frames parsed, built and masked, and UTF-8 checked, by the C files beside this one.

:mod:`ws4py.pureframing` and :mod:`ws4py.utf8validator` are the specification: what is said there holds here.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromObject, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyTypeObject
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from ws4py.exc import (
    MessageTooBigException,
    ProtocolException,
    TextFrameEncodingException,
    TooManyFragmentsException,
    UnsupportedFrameTypeException,
)

__all__ = ["FrameParser", "Utf8Validator", "apply_mask", "build_frame", "take_messages"]

cdef enum:
    TEXT = 0x81  # the first bytes of whole messages
    BINARY = 0x82

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX
    object PyType_GenericNew(PyTypeObject *, object, void *)

cdef extern from "masking.h" nogil:
    void ws4py_mask(uint8_t *to, const uint8_t *source, size_t size, const uint8_t *key)

cdef extern from "parsing.h" nogil:
    const int WS4PY_FIN
    const int64_t WS4PY_NO_LIMIT

    ctypedef struct ws4py_parser:
        int64_t max_message_size
        int64_t max_fragments
        int64_t fragments
        int64_t size
        int64_t extra
        int64_t remaining
        uint8_t mask_bit
        uint8_t rsv1

    ctypedef struct ws4py_frame:
        uint8_t first
        uint8_t begins
        uint8_t *key
        size_t start
        size_t size

    ctypedef enum ws4py_found:
        WS4PY_FRAME
        WS4PY_MORE
        WS4PY_RESERVED_OPCODE
        WS4PY_RESERVED_BIT
        WS4PY_FRAGMENTED_CONTROL
        WS4PY_NOT_MASKED
        WS4PY_MASKED
        WS4PY_LONG_CONTROL
        WS4PY_LENGTH_OVERFLOW
        WS4PY_LENGTH_NOT_SHORTEST
        WS4PY_MESSAGE_NOT_ENDED
        WS4PY_NOTHING_TO_CONTINUE
        WS4PY_MESSAGE_TOO_BIG

    ws4py_found ws4py_next_frame(ws4py_parser *, const uint8_t *, size_t, size_t *, ws4py_frame *)
    size_t ws4py_write_header(uint8_t *, uint8_t, uint8_t, uint64_t)

cdef extern from "utf8.h" nogil:
    ctypedef struct ws4py_utf8:
        uint8_t wanted

    size_t ws4py_check_utf8(ws4py_utf8 *, const uint8_t *, size_t, int *)


cdef inline bytes _bytes(data):
    """Return what is like bytes as bytes."""
    return <bytes> data if type(data) is bytes else PyBytes_FromObject(data)


cdef inline uint8_t *_start(bytes data) noexcept:
    return <uint8_t *> PyBytes_AS_STRING(data)


cdef uint8_t *_key(bytes key) except NULL:
    if PyBytes_GET_SIZE(key) != 4:
        raise ValueError("A masking key has 4 bytes")
    return _start(key)


def apply_mask(data, key, /) -> bytes:
    """Mask or unmask ``data`` with a 4-byte ``key`` (RFC 6455, section 5.3)."""
    cdef bytes source = _bytes(data), mask = _bytes(key)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(source)
    cdef uint8_t *with_key = _key(mask)
    masked = PyBytes_FromStringAndSize(NULL, size)
    ws4py_mask(_start(masked), _start(source), size, with_key)
    return masked


def build_frame(first, payload, key=None) -> bytes:
    """Return the bytes of one frame."""
    cdef bytes source = _bytes(payload), mask
    cdef Py_ssize_t size = PyBytes_GET_SIZE(source)
    cdef uint8_t header[10]
    cdef uint8_t *with_key = NULL
    cdef uint8_t *to
    cdef long first_byte = first
    cdef size_t length
    if not 0 <= first_byte <= 255:
        raise ValueError("bytes must be in range(0, 256)")
    if key is not None:
        mask = _bytes(key)
        with_key = _key(mask)
    length = ws4py_write_header(header, <uint8_t> first_byte, 0x80 if with_key else 0, size)
    frame = PyBytes_FromStringAndSize(NULL, length + (4 if with_key else 0) + size)
    to = _start(frame)
    memcpy(to, header, length)
    to += length
    if with_key:
        memcpy(to, with_key, 4)
        ws4py_mask(to + 4, _start(source), size, with_key)
    else:
        memcpy(to, _start(source), size)
    return frame


cdef bint _is_utf8(bytes text) noexcept:
    cdef ws4py_utf8 state
    cdef int valid
    state.wanted = 0
    ws4py_check_utf8(&state, _start(text), PyBytes_GET_SIZE(text), &valid)
    return valid and not state.wanted


cdef inline bytes _payload(uint8_t *data, size_t size, uint8_t *key):
    """Return a payload as bytes; ``key`` is NULL if it is not masked."""
    if key == NULL:
        return PyBytes_FromStringAndSize(<char *> data, size)
    payload = PyBytes_FromStringAndSize(NULL, size)
    ws4py_mask(_start(payload), data, size, key)
    return payload


cdef int64_t _limit(limit) except? -1:
    """Return a limit as the parser in C has it; what is beyond all sizes is none."""
    return WS4PY_NO_LIMIT if limit is None or limit > INT64_MAX else <int64_t> limit


cdef inline _message(type kind, bytes payload):
    """Return a message of a class, without a constructor's conversions."""
    message = PyType_GenericNew(<PyTypeObject *> kind, (), NULL)
    message.data = payload
    return message


def take_messages(list frames, list found, type text, type binary):
    """Make messages of frames up to the first one that is no whole message; return of how many."""
    cdef Py_ssize_t taken = 0
    cdef long first
    cdef bytes payload
    for frame in frames:
        first, payload = <tuple?> frame
        if first == TEXT:
            if not _is_utf8(payload):
                raise TextFrameEncodingException("A text message must be UTF-8")
            found.append(_message(text, payload))
        elif first == BINARY:
            found.append(_message(binary, payload))
        else:
            break
        taken += 1
    return taken


@cython.final
@cython.no_gc  # it refers to bytes only
cdef class FrameParser:
    """An incremental parser of one direction of a connection: :class:`ws4py.pureframing.FrameParser`."""

    cdef ws4py_parser _parser
    cdef bytes _head  # what has come of a header, or of a control frame; what feed() has left
    cdef readonly Py_ssize_t count  # how many frames have begun that feed() has found
    cdef readonly bint more  # whether it has left frames for the next time

    def __init__(self, expect_masking=True, max_message_size=None, max_fragments=None):
        self.expect_masking = expect_masking
        self.max_message_size = max_message_size
        self.max_fragments = max_fragments

    @property
    def expect_masking(self):
        """Whether frames must be masked; else they may not be."""
        return self._parser.mask_bit != 0

    @expect_masking.setter
    def expect_masking(self, expected):
        self._parser.mask_bit = 0x80 if expected else 0

    @property
    def max_message_size(self):
        """Payload bytes in a message, None for no limit."""
        cdef int64_t limit = self._parser.max_message_size
        return None if limit == WS4PY_NO_LIMIT else limit

    @max_message_size.setter
    def max_message_size(self, limit):
        self._parser.max_message_size = _limit(limit)

    @property
    def max_fragments(self):
        """Frames in a message, None for no limit."""
        cdef int64_t limit = self._parser.max_fragments
        return None if limit == WS4PY_NO_LIMIT else limit

    @max_fragments.setter
    def max_fragments(self, limit):
        self._parser.max_fragments = _limit(limit)

    def allow_rsv1(self):
        """Let the first frame of a data message have RSV1 set: an extension gives it a meaning."""
        self._parser.rsv1 = 1

    @property
    def inside_message(self):
        """Whether a data message, or any frame, has begun and not ended."""
        return self._parser.remaining != 0 or self._parser.fragments != 0 or self._head is not None

    @property
    def kept(self):
        """How many bytes are kept: of what is not whole, and what :meth:`feed` has left."""
        return 0 if self._head is None else PyBytes_GET_SIZE(self._head)

    def take_message(self, data, type text, type binary):
        """Return the message if ``data`` is one whole message of less than 64 KiB, and no more; else None."""
        cdef bytes source = _bytes(data)
        cdef Py_ssize_t length = 6 if self._parser.mask_bit else 2
        cdef Py_ssize_t size = PyBytes_GET_SIZE(source) - length
        cdef Py_ssize_t announced = size
        cdef uint8_t *start = _start(source)
        if size >= 126:
            length += 2
            size -= 2
            announced = 126
            if not 126 <= size < 65536 or (start[2] << 8 | start[3]) != size:
                return None
        if (
            size < 0
            or start[1] != (announced | self._parser.mask_bit)
            or (start[0] != TEXT and start[0] != BINARY)
            or self._head is not None
            or self._parser.remaining
            or self._parser.fragments
            or size > self._parser.max_message_size
        ):
            return None
        payload = _payload(start + length, size, start + length - 4 if self._parser.mask_bit else NULL)
        if start[0] == BINARY:
            return _message(binary, payload)
        return _message(text, payload) if _is_utf8(payload) else None

    def feed(self, data, frames, Py_ssize_t limit=PY_SSIZE_T_MAX):
        """Parse ``data``, and append a ``(first byte, unmasked payload)`` to ``frames`` for each frame in it."""
        cdef bytes source = _bytes(data)
        cdef ws4py_frame frame
        cdef ws4py_found found = WS4PY_MORE
        cdef Py_ssize_t begun = 0
        cdef size_t at = 0, size
        cdef uint8_t *start
        if self._head is not None:
            source = self._head + source
            self._head = None
        start = _start(source)
        size = PyBytes_GET_SIZE(source)
        self.more = False
        while begun < limit or self._parser.remaining:
            found = ws4py_next_frame(&self._parser, start, size, &at, &frame)
            if found != WS4PY_FRAME:
                break
            begun += frame.begins
            payload = _payload(start + frame.start, frame.size, frame.key if self._parser.mask_bit else NULL)
            frames.append((frame.first, payload))
        else:
            self.more = size - at >= 2
        if found > WS4PY_MORE:
            raise self._broken(found, start[at])
        self.count += begun
        if at < size:
            self._head = source[at:]

    cdef _broken(self, ws4py_found found, uint8_t first):
        """Return the exception that says which rule is broken."""
        if found == WS4PY_RESERVED_OPCODE:
            return UnsupportedFrameTypeException(f"Opcode {first & 0x0F:#x} is reserved")
        if found == WS4PY_RESERVED_BIT:
            return UnsupportedFrameTypeException("A reserved bit is set, and no extension gives it a meaning")
        if found == WS4PY_MESSAGE_TOO_BIG:
            return MessageTooBigException(f"A message of over {self.max_message_size} bytes")
        if found == WS4PY_FRAGMENTED_CONTROL:
            return ProtocolException("A control frame may not be fragmented")
        if found == WS4PY_NOT_MASKED:
            return ProtocolException("A frame must be masked")
        if found == WS4PY_MASKED:
            return ProtocolException("A frame may not be masked")
        if found == WS4PY_LONG_CONTROL:
            return ProtocolException("A control frame may carry 125 bytes at most")
        if found == WS4PY_LENGTH_OVERFLOW:
            return ProtocolException("The most significant bit of a payload length must be 0")
        if found == WS4PY_LENGTH_NOT_SHORTEST:
            return ProtocolException("A payload length must have its shortest form")
        if found == WS4PY_MESSAGE_NOT_ENDED:
            return ProtocolException("A new message began before the last one had ended")
        if found == WS4PY_NOTHING_TO_CONTINUE:
            return ProtocolException("There is no message to continue")
        return TooManyFragmentsException(f"A message of over {self.max_fragments} fragments")


@cython.no_gc
cdef class Utf8Validator:
    """Checks UTF-8 as it arrives: :class:`ws4py.utf8validator.Utf8Validator`."""

    cdef ws4py_utf8 _state
    cdef Py_ssize_t _total

    def validate(self, data):
        """Check the next piece of a text."""
        cdef bytes source = _bytes(data)
        cdef int valid
        cdef size_t accepted = ws4py_check_utf8(&self._state, _start(source), PyBytes_GET_SIZE(source), &valid)
        self._total += accepted
        return valid != 0, valid != 0 and self._state.wanted == 0, accepted, self._total

    def reset(self):
        """Start with a new text."""
        self._state.wanted = 0
        self._total = 0
