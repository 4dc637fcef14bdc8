/* What waits to be written: frames, in their order. See ws4py/engine/outbox.py, of which this is the twin. */
#include "../../native/parsing.h"
#include "wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

size_t wire_out_size(const wire_conn *conn)
{
    return __atomic_load_n(&conn->pending, __ATOMIC_SEQ_CST);
}

/* Say how much there is now. The mutex is held. */
static void count(wire_conn *conn)
{
    __atomic_store_n(&conn->pending, conn->out_len + conn->cur_len - conn->cur_off, __ATOMIC_SEQ_CST);
}

int wire_append_locked(wire_conn *conn, const char *header, size_t header_size, const char *payload, size_t size)
{
    size_t need = conn->out_len + header_size + size;
    if (need > conn->out_cap) {
        size_t cap = 2 * conn->out_cap;
        if (cap < need)
            cap = need < 120 ? 120 : need;
        char *out = realloc(conn->out, cap);
        if (out == NULL)
            return -1;
        conn->out = out;
        conn->out_cap = cap;
    }
    memcpy(conn->out + conn->out_len, header, header_size);
    memcpy(conn->out + conn->out_len + header_size, payload, size);
    conn->out_len = need;
    count(conn);
    return 0;
}

static int append(wire_core *core, wire_conn *conn, const char *header, size_t header_size, const char *payload,
                  size_t size)
{
    int wake = 0, failed;
    pthread_mutex_lock(&core->mutex);
    failed = wire_append_locked(conn, header, header_size, payload, size);
    if (!failed && !conn->dirty)
        wake = wire_push(core, conn);
    pthread_mutex_unlock(&core->mutex);
    return failed ? -1 : wake;
}

int wire_put(wire_core *core, wire_conn *conn, int opcode, const char *payload, size_t size)
{
    uint8_t header[10];
    size_t header_size = ws4py_write_header(header, (uint8_t)(WS4PY_FIN | opcode), 0, size);
    return append(core, conn, (const char *)header, header_size, payload, size);
}

int wire_append(wire_core *core, wire_conn *conn, const char *frame, size_t size)
{
    return append(core, conn, "", 0, frame, size);
}

/* Return where the frame ends in which `position` lies; the buffer begins with a frame. */
static size_t frame_end(const uint8_t *data, size_t len, size_t position)
{
    size_t start = 0;
    while (start < position && len - start >= 2) {
        uint64_t size = data[start + 1] & 0x7f;
        size_t header = 2;
        if (size == 126) {
            size = ((uint64_t)data[start + 2] << 8) | data[start + 3];
            header = 4;
        } else if (size == 127) {
            size = 0;
            for (int i = 0; i < 8; i++)
                size = (size << 8) | data[start + 2 + i];
            header = 10;
        }
        if (data[start + 1] & 0x80)
            header += 4;
        start += header + (size_t)size;
    }
    return start < len ? start : len;
}

static void drop_cur(wire_conn *conn)
{
    free(conn->cur);
    conn->cur = NULL;
    conn->cur_len = conn->cur_off = 0;
}

/* Keep of what was taken only the end of a frame whose beginning is written. */
static void cut(wire_conn *conn)
{
    size_t end = frame_end((const uint8_t *)conn->cur, conn->cur_len, conn->cur_off);
    if (end > conn->cur_off)
        conn->cur_len = end;
    else
        drop_cur(conn);
}

int wire_give_up(wire_core *core, wire_conn *conn, const char *last, size_t size)
{
    int wake = 0, failed;
    pthread_mutex_lock(&core->mutex);
    conn->out_len = 0;
    conn->closed = 1;
    failed = wire_append_locked(conn, "", 0, last, size);
    if (conn->writing)
        conn->cut = 1;
    else if (conn->cur != NULL)
        cut(conn);
    count(conn);
    wake = wire_push(core, conn);
    pthread_mutex_unlock(&core->mutex);
    return failed ? -1 : wake;
}

void wire_clear(wire_core *core, wire_conn *conn)
{
    pthread_mutex_lock(&core->mutex);
    free(conn->out);
    conn->out = NULL;
    conn->out_len = conn->out_cap = 0;
    conn->closed = 1;
    if (conn->writing)
        conn->cleared = 1;
    else {
        drop_cur(conn);
        conn->blocked = 0;
    }
    count(conn);
    pthread_mutex_unlock(&core->mutex);
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

void wire_reconcile(wire_core *core, wire_conn *conn)
{
    uint32_t interest = (conn->watched && !conn->muted ? EPOLLIN : 0) | (conn->blocked ? EPOLLOUT : 0);
    if (interest == conn->interest || core->epoll < 0)
        return;
    int operation = !interest ? EPOLL_CTL_DEL : conn->interest ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    struct epoll_event event;
    event.events = interest;
    event.data.u64 = wire_handle(conn);
    conn->interest = interest;
    pthread_mutex_unlock(&core->mutex);
    int failed = epoll_ctl(core->epoll, operation, conn->fd, &event), error = errno;
    pthread_mutex_lock(&core->mutex);
    if (failed && interest && !conn->broken) {
        conn->broken = 1;
        conn->interest = 0;
        wire_land(core, conn, WIRE_LOST, (uint32_t)error, NULL);
    }
}

/* Write once what waits, or as long as the kernel takes all; the mutex is held, and the connection marked busy. */
static int write_out(wire_core *core, wire_conn *conn, int writable)
{
    int wrote = 0;
    if (conn->blocked && !writable)
        return 0;
    while (!conn->broken) {
        if (conn->cur == NULL) {
            if (!conn->out_len)
                break;
            conn->cur = conn->out;
            conn->cur_len = conn->out_len;
            conn->cur_off = 0;
            conn->out = NULL;
            conn->out_len = conn->out_cap = 0;
        }
        const char *data = conn->cur + conn->cur_off;
        size_t size = conn->cur_len - conn->cur_off;
        if (conn->cur_off == 0 && !(conn->cur[0] & 0x08)) /* a Ping of ours is no sign of life */
            conn->active_at = wire_now();
        conn->writing = 1;
        pthread_mutex_unlock(&core->mutex);
        ssize_t sent = send(conn->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        int error = errno;
        pthread_mutex_lock(&core->mutex);
        conn->writing = 0;
        if (sent < 0) {
            if (error != EAGAIN && error != EINTR) {
                conn->broken = 1;
                wire_land(core, conn, WIRE_LOST, (uint32_t)error, NULL);
                drop_cur(conn);
                conn->blocked = 0;
                return 1;
            }
            sent = 0;
        }
        wrote = 1;
        conn->traffic.bytes_sent += (uint64_t)sent;
        conn->cur_off += (size_t)sent;
        conn->blocked = (size_t)sent < size;
        if (conn->cleared) {
            conn->cleared = conn->cut = 0;
            drop_cur(conn);
            conn->blocked = 0;
            break;
        }
        if (conn->cur_off == conn->cur_len)
            drop_cur(conn);
        else if (conn->cut)
            cut(conn);
        conn->cut = 0;
        if (conn->blocked)
            break;
    }
    return wrote;
}

void wire_write(wire_core *core, uint64_t handle, int writable)
{
    pthread_mutex_lock(&core->mutex);
    wire_conn *conn;
    while ((conn = wire_lookup(core, handle)) != NULL && conn->busy)
        pthread_cond_wait(&core->idle, &core->mutex);
    if (conn != NULL) {
        conn->dirty = 0;
        conn->busy = 1;
        int wrote = write_out(core, conn, writable);
        count(conn);
        wire_reconcile(core, conn);
        conn->busy = 0;
        if (wrote && !conn->told && !conn->broken &&
            (conn->needs_update || conn->has_sender || !conn->watched || conn->muted)) {
            conn->told = 1;
            wire_land(core, conn, WIRE_WROTE, 0, NULL);
        }
        pthread_cond_broadcast(&core->idle);
    }
    pthread_mutex_unlock(&core->mutex);
}
