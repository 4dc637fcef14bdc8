/* The cycle: write all that is dirty, wait, read all that is ready; and the guard, who does that while the interpreter
 * is kept from it. */
#include "wire.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* For how many seconds nobody may poll before the guard does. */
#define PATIENCE 0.001
/* After so many looks without need the guard sleeps until it is told to look again. */
#define QUIET_LOOKS 32
/* How much of what is not parsed here may wait for the interpreter. */
#define MOST_RAW 2

static void flush(wire_core *core)
{
    pthread_mutex_lock(&core->mutex);
    wire_list list = core->looking;
    core->looking = core->dirty;
    core->dirty = list;
    core->dirty.len = 0;
    pthread_mutex_unlock(&core->mutex);
    for (size_t i = 0; i < core->looking.len; i++)
        wire_write(core, core->looking.items[i], 0);
    core->looking.len = 0;
}

/* Read nothing more until the interpreter's side has looked at it. The mutex is held. */
static void mute(wire_core *core, wire_conn *conn)
{
    conn->muted = 1;
    conn->busy = 1;
    wire_reconcile(core, conn);
    conn->busy = 0;
    pthread_cond_broadcast(&core->idle);
}

static int may_read(const wire_conn *conn)
{
    if (conn->deaf)
        return 1;
    if (wire_out_size(conn) >= conn->max_outbox)
        return 0;
    if (conn->raw)
        return conn->landed_raw < MOST_RAW;
    return conn->landed < conn->room && conn->landed_size < conn->room_size;
}

static void take_in(wire_core *core, wire_conn *conn, ssize_t count, int error)
{
    if (count > 0) {
        conn->heard_at = wire_now();
        if (conn->deaf) {
            conn->traffic.bytes_received += (uint64_t)count;
            return;
        }
        const uint8_t *data = (const uint8_t *)core->buffer;
        size_t done = conn->raw ? 0 : wire_parse(core, conn, data, (size_t)count);
        if (done < (size_t)count) {
            wire_land(core, conn, WIRE_RAW, (uint32_t)((size_t)count - done), data + done);
            conn->raw = 1;
            conn->landed_raw++;
        }
        if (conn->out_len)
            wire_push(core, conn); /* of Pongs; it is not asleep who reads */
    } else if (count == 0) {
        static const char nothing[1];
        wire_land(core, conn, WIRE_RAW, 0, nothing);
        conn->landed_raw++;
        mute(core, conn);
    } else if (error != EAGAIN && error != EINTR) {
        if (!conn->broken)
            wire_land(core, conn, WIRE_LOST, (uint32_t)error, NULL);
        conn->broken = 1;
        mute(core, conn);
    }
}

static void read_some(wire_core *core, uint64_t handle)
{
    pthread_mutex_lock(&core->mutex);
    wire_conn *conn;
    while ((conn = wire_lookup(core, handle)) != NULL && conn->busy)
        pthread_cond_wait(&core->idle, &core->mutex);
    if (conn == NULL || conn->broken) {
        if (conn != NULL)
            mute(core, conn);
    } else if (!conn->watched || conn->muted) {
        conn->busy = 1;
        wire_reconcile(core, conn);
        conn->busy = 0;
        pthread_cond_broadcast(&core->idle);
    } else if (!may_read(conn)) {
        wire_land(core, conn, WIRE_MUTED, 0, NULL);
        mute(core, conn);
    } else if (wire_reserve(core, 4 * (size_t)WIRE_RECEIVE) == 0) { /* a message of 6 bytes takes 24 */
        conn->busy = 1;
        pthread_mutex_unlock(&core->mutex);
        ssize_t count = recv(conn->fd, core->buffer, WIRE_RECEIVE, MSG_DONTWAIT);
        int error = errno;
        pthread_mutex_lock(&core->mutex);
        conn->busy = 0;
        pthread_cond_broadcast(&core->idle);
        if (wire_reserve(core, 4 * (size_t)WIRE_RECEIVE + 64) == 0) /* it may have been taken meanwhile */
            take_in(core, conn, count, error);
        else
            abort();
    }
    pthread_mutex_unlock(&core->mutex);
}

/* Look once at what is ready, after a wait of so many milliseconds at most; return how many events there were that were
 * more than to be woken. */
static int look(wire_core *core, int timeout)
{
    struct epoll_event events[WIRE_EVENTS];
    int found = 0, count = epoll_wait(core->epoll, events, WIRE_EVENTS, timeout);
    pthread_mutex_lock(&core->mutex);
    core->sleeping = 0;
    pthread_mutex_unlock(&core->mutex);
    for (int i = 0; i < count; i++) {
        uint64_t handle = events[i].data.u64;
        uint32_t event = events[i].events;
        if (handle == UINT64_MAX) {
            uint64_t junk;
            ssize_t size = read(core->eventfd, &junk, sizeof(junk));
            (void)size;
            continue;
        }
        found++;
        if (handle & WIRE_FOREIGN) {
            pthread_mutex_lock(&core->mutex);
            int place = 0, fd = (int)(handle & 0x7fffffff);
            while (place < core->foreign_len && core->foreign[place].fd != fd)
                place++;
            if (place < WIRE_EVENTS) {
                core->foreign[place].fd = fd;
                core->foreign[place].events = event;
                if (place == core->foreign_len)
                    core->foreign_len++;
            }
            pthread_mutex_unlock(&core->mutex);
            continue;
        }
        if (event & ~(uint32_t)EPOLLIN)
            wire_write(core, handle, 1);
        if (event & ~(uint32_t)EPOLLOUT)
            read_some(core, handle);
    }
    return found;
}

static int has_news(wire_core *core)
{
    return core->arenas[core->landing].len != 0 || core->foreign_len != 0;
}

void wire_cycle(wire_core *core, double timeout)
{
    double end = timeout < 0 ? INFINITY : wire_now() + timeout;
    pthread_mutex_lock(&core->mutex);
    while (core->polling)
        pthread_cond_wait(&core->idle, &core->mutex);
    core->polling = 1;
    pthread_mutex_unlock(&core->mutex);
    int news;
    do {
        int wait = 0;
        flush(core);
        pthread_mutex_lock(&core->mutex);
        news = has_news(core);
        if (!core->dirty.len && !news && timeout != 0) {
            double left = timeout < 0 ? 1e6 : ceil((end - wire_now()) * 1000);
            wait = left < 0 ? 0 : left > 1e9 ? 1000000000 : (int)left;
            if (timeout < 0)
                wait = -1;
            core->sleeping = 1;
        }
        pthread_mutex_unlock(&core->mutex);
        look(core, wait);
        pthread_mutex_lock(&core->mutex);
        news = has_news(core);
        if (core->dirty.len && news) {
            pthread_mutex_unlock(&core->mutex);
            flush(core); /* Pongs */
            pthread_mutex_lock(&core->mutex);
        }
        pthread_mutex_unlock(&core->mutex);
    } while (!news && (timeout < 0 || wire_now() < end));
    pthread_mutex_lock(&core->mutex);
    core->polling = 0;
    core->polled_at = wire_now();
    pthread_cond_broadcast(&core->idle);
    if (core->guarding && !core->armed) {
        core->armed = 1;
        pthread_cond_signal(&core->alarm);
    }
    pthread_mutex_unlock(&core->mutex);
}

/* --- the guard ---------------------------------------------------------------------------------------------------- */

static void *guard(void *argument)
{
    wire_core *core = argument;
    const struct timespec pause = {0, (long)(PATIENCE * 1e9)};
    int quiet = 0;
    pthread_mutex_lock(&core->mutex);
    while (!core->ending) {
        if (!core->armed) {
            pthread_cond_wait(&core->alarm, &core->mutex);
            quiet = 0;
            continue;
        }
        pthread_mutex_unlock(&core->mutex);
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&core->mutex);
        if (core->ending)
            break;
        if (core->polling) {
            if (core->sleeping && ++quiet > QUIET_LOOKS)
                core->armed = 0;
        } else if (wire_now() - core->polled_at > PATIENCE) {
            quiet = 0;
            core->polling = 1;
            core->reliefs++;
            pthread_mutex_unlock(&core->mutex);
            flush(core);
            look(core, 0);
            flush(core);
            pthread_mutex_lock(&core->mutex);
            core->polling = 0;
            pthread_cond_broadcast(&core->idle);
        } else
            quiet = 0;
    }
    pthread_mutex_unlock(&core->mutex);
    return NULL;
}

void wire_guard_start(wire_core *core)
{
    sigset_t all, before;
    core->ending = core->armed = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the interpreter's threads */
    core->guarding = pthread_create(&core->guard, NULL, guard, core) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void wire_guard_stop(wire_core *core)
{
    if (!core->guarding)
        return;
    pthread_mutex_lock(&core->mutex);
    core->ending = 1;
    pthread_cond_signal(&core->alarm);
    pthread_mutex_unlock(&core->mutex);
    pthread_join(core->guard, NULL);
    core->guarding = 0;
}
