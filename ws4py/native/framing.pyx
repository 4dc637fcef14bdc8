# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""What :mod:`ws4py.pureframing` does, compiled. That is the specification."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t

__all__ = ["apply_mask"]

cdef extern from "masking.h" nogil:
    void ws4py_mask(uint8_t *to, const uint8_t *source, size_t size, const uint8_t *key)


def apply_mask(data: bytes, key: bytes, /) -> bytes:
    """Mask or unmask ``data`` with a 4-byte ``key`` (RFC 6455, section 5.3)."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    if PyBytes_GET_SIZE(key) < 4:
        raise IndexError("A masking key has 4 bytes")
    masked = PyBytes_FromStringAndSize(NULL, size)
    ws4py_mask(<uint8_t *> PyBytes_AS_STRING(masked), <uint8_t *> PyBytes_AS_STRING(data), size,
               <uint8_t *> PyBytes_AS_STRING(key))
    return masked
