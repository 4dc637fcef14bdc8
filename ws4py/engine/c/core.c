/* The table of connections, and what the interpreter's side asks for. */
#include "wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

double wire_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* --- forks: whoever forks holds every mutex meanwhile, so that none is another thread's, which the child has not ------ */

static pthread_mutex_t cores_mutex = PTHREAD_MUTEX_INITIALIZER;
static wire_core *cores;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_locks(wire_core *core)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&core->mutex, NULL);
    pthread_cond_init(&core->idle, &attributes);
    pthread_cond_init(&core->alarm, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void before_fork(void)
{
    pthread_mutex_lock(&cores_mutex);
    for (wire_core *core = cores; core != NULL; core = core->next)
        pthread_mutex_lock(&core->mutex);
}

static void after_fork(void)
{
    for (wire_core *core = cores; core != NULL; core = core->next)
        pthread_mutex_unlock(&core->mutex);
    pthread_mutex_unlock(&cores_mutex);
}

static void after_fork_in_child(void)
{
    for (wire_core *core = cores; core != NULL; core = core->next) {
        init_locks(core);
        core->guarding = core->polling = core->sleeping = 0;
    }
    pthread_mutex_init(&cores_mutex, NULL);
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

/* ------------------------------------------------------------------------------------------------------------------ */

wire_core *wire_new(void)
{
    wire_core *core = calloc(1, sizeof(wire_core));
    if (core == NULL)
        return NULL;
    core->buffer = malloc(WIRE_RECEIVE);
    if (core->buffer == NULL) {
        free(core);
        return NULL;
    }
    init_locks(core);
    core->epoll = core->eventfd = -1;
    core->references = 1;
    pthread_once(&once, watch_forks);
    pthread_mutex_lock(&cores_mutex);
    core->next = cores;
    cores = core;
    pthread_mutex_unlock(&cores_mutex);
    return core;
}

int wire_open(wire_core *core)
{
    struct epoll_event event;
    int error = 0;
    core->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (core->epoll < 0)
        return errno;
    core->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    event.events = EPOLLIN;
    event.data.u64 = UINT64_MAX;
    if (core->eventfd < 0 || epoll_ctl(core->epoll, EPOLL_CTL_ADD, core->eventfd, &event) < 0) {
        error = errno;
        close(core->epoll);
        if (core->eventfd >= 0)
            close(core->eventfd);
        core->epoll = core->eventfd = -1;
        return error;
    }
    pthread_mutex_lock(&core->mutex);
    for (uint32_t i = 0; i < core->table_len; i++)
        if (core->table[i] != NULL) {
            core->table[i]->interest = 0;
            wire_push(core, core->table[i]);
        }
    pthread_mutex_unlock(&core->mutex);
    wire_guard_start(core);
    return 0;
}

void wire_close(wire_core *core)
{
    if (core->epoll < 0)
        return;
    wire_guard_stop(core);
    close(core->epoll);
    close(core->eventfd);
    core->epoll = core->eventfd = -1;
}

wire_core *wire_ref(wire_core *core)
{
    core->references++;
    return core;
}

void wire_unref(wire_core *core)
{
    if (--core->references > 0)
        return;
    pthread_mutex_lock(&cores_mutex);
    wire_core **place = &cores;
    while (*place != core)
        place = &(*place)->next;
    *place = core->next;
    pthread_mutex_unlock(&cores_mutex);
    free(core->table);
    free(core->free_places);
    free(core->generations);
    free(core->dirty.items);
    free(core->looking.items);
    free(core->arenas[0].data);
    free(core->arenas[1].data);
    free(core->buffer);
    free(core);
}

wire_conn *wire_conn_new(void)
{
    wire_conn *conn = calloc(1, sizeof(wire_conn));
    if (conn != NULL) {
        conn->fd = -1;
        conn->references = 1;
    }
    return conn;
}

wire_conn *wire_conn_ref(wire_conn *conn)
{
    conn->references++;
    return conn;
}

void wire_conn_unref(wire_conn *conn)
{
    if (--conn->references > 0)
        return;
    free(conn->out);
    free(conn->cur);
    free(conn);
}

uint64_t wire_handle(const wire_conn *conn)
{
    return ((uint64_t)conn->generation << 32) | conn->index;
}

wire_conn *wire_lookup(wire_core *core, uint64_t handle)
{
    uint32_t index = (uint32_t)handle;
    if (index >= core->table_len || core->generations[index] != (uint32_t)(handle >> 32))
        return NULL;
    return core->table[index];
}

static int grow_table(wire_core *core)
{
    uint32_t size = core->table_len ? 2 * core->table_len : 64;
    wire_conn **table = realloc(core->table, size * sizeof(*table));
    if (table == NULL)
        return -1;
    core->table = table;
    uint32_t *places = realloc(core->free_places, size * sizeof(*places));
    if (places == NULL)
        return -1;
    core->free_places = places;
    uint32_t *generations = realloc(core->generations, size * sizeof(*generations));
    if (generations == NULL)
        return -1;
    core->generations = generations;
    for (uint32_t i = size; i-- > core->table_len;) {
        core->table[i] = NULL;
        core->generations[i] = 0;
        core->free_places[core->free_len++] = i;
    }
    core->table_len = size;
    return 0;
}

int wire_attach(wire_core *core, wire_conn *conn, int fd)
{
    pthread_mutex_lock(&core->mutex);
    if (core->free_len == 0 && grow_table(core) < 0) {
        pthread_mutex_unlock(&core->mutex);
        return -1;
    }
    conn->index = core->free_places[--core->free_len];
    conn->generation = core->generations[conn->index];
    conn->fd = fd;
    conn->attached = 1;
    core->table[conn->index] = conn;
    pthread_mutex_unlock(&core->mutex);
    return 0;
}

void wire_detach(wire_core *core, wire_conn *conn)
{
    pthread_mutex_lock(&core->mutex);
    if (conn->attached) {
        while (conn->busy)
            pthread_cond_wait(&core->idle, &core->mutex);
        conn->attached = 0;
        core->table[conn->index] = NULL;
        /* the highest bit tells descriptors that are not in the table; see cycle.c */
        core->generations[conn->index] = (core->generations[conn->index] + 1) & 0x3fffffff;
        core->free_places[core->free_len++] = conn->index;
        if (conn->interest && core->epoll >= 0) {
            struct epoll_event event = {0};
            int fd = conn->fd;
            conn->interest = 0;
            pthread_mutex_unlock(&core->mutex);
            epoll_ctl(core->epoll, EPOLL_CTL_DEL, fd, &event);
            pthread_mutex_lock(&core->mutex);
        }
    }
    pthread_mutex_unlock(&core->mutex);
}

int wire_push(wire_core *core, wire_conn *conn)
{
    int wake;
    if (conn->dirty || !conn->attached)
        return 0;
    wire_list *list = &core->dirty;
    if (list->len == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 64;
        uint64_t *items = realloc(list->items, cap * sizeof(*items));
        if (items == NULL)
            abort();
        list->items = items;
        list->cap = cap;
    }
    list->items[list->len++] = wire_handle(conn);
    conn->dirty = 1;
    wake = core->sleeping;
    core->sleeping = 0;
    return wake;
}

void wire_wake(wire_core *core)
{
    uint64_t one = 1;
    ssize_t count;
    do
        count = write(core->eventfd, &one, sizeof(one));
    while (count < 0 && errno == EINTR);
}

void wire_watch(wire_core *core, wire_conn *conn, int reading)
{
    int wake = 0;
    pthread_mutex_lock(&core->mutex);
    uint8_t watched = reading != 0;
    if (conn->watched != watched || conn->muted) {
        conn->watched = watched;
        conn->muted = 0;
        wake = wire_push(core, conn);
    }
    pthread_mutex_unlock(&core->mutex);
    if (wake)
        wire_wake(core);
}

void wire_start_raw(wire_core *core, wire_conn *conn)
{
    pthread_mutex_lock(&core->mutex);
    conn->raw = 1;
    pthread_mutex_unlock(&core->mutex);
}

void wire_resume(wire_core *core, wire_conn *conn)
{
    pthread_mutex_lock(&core->mutex);
    if (!conn->landed_raw)
        conn->raw = 0;
    pthread_mutex_unlock(&core->mutex);
}

void wire_set_room(wire_core *core, wire_conn *conn, uint32_t room, size_t size)
{
    pthread_mutex_lock(&core->mutex);
    conn->room = room;
    conn->room_size = size;
    pthread_mutex_unlock(&core->mutex);
}

void wire_set(wire_core *core, uint8_t *flag, int value)
{
    pthread_mutex_lock(&core->mutex);
    *flag = value != 0;
    pthread_mutex_unlock(&core->mutex);
}

void wire_taken(wire_core *core, wire_conn *conn, uint32_t messages, size_t size)
{
    pthread_mutex_lock(&core->mutex);
    conn->landed -= messages;
    conn->landed_size -= size;
    pthread_mutex_unlock(&core->mutex);
}

void wire_taken_raw(wire_core *core, wire_conn *conn)
{
    pthread_mutex_lock(&core->mutex);
    conn->landed_raw--;
    pthread_mutex_unlock(&core->mutex);
}

/* In a forked process: the connections are the parent's. */
void wire_after_fork(wire_core *core)
{
    for (uint32_t i = 0; i < core->table_len; i++)
        if (core->table[i] != NULL)
            core->table[i]->attached = 0;
    core->table_len = core->free_len = 0;
}

/* --- what has landed ---------------------------------------------------------------------------------------------- */

int wire_reserve(wire_core *core, size_t size)
{
    wire_arena *arena = &core->arenas[core->landing];
    if (arena->cap - arena->len >= size)
        return 0;
    size_t cap = 2 * arena->cap;
    if (cap < arena->len + size)
        cap = arena->len + size;
    char *data = realloc(arena->data, cap);
    if (data == NULL)
        return -1;
    arena->data = data;
    arena->cap = cap;
    return 0;
}

void wire_land(wire_core *core, wire_conn *conn, uint32_t kind, uint32_t size, const void *payload)
{
    size_t bytes = payload == NULL ? 0 : size, padded = (bytes + 7) & ~(size_t)7;
    if (wire_reserve(core, sizeof(wire_record) + padded) < 0)
        abort();
    wire_arena *arena = &core->arenas[core->landing];
    wire_record *record = (wire_record *)(arena->data + arena->len);
    record->index = conn->index;
    record->generation = conn->generation;
    record->kind = kind;
    record->size = size;
    if (bytes)
        memcpy(record + 1, payload, bytes);
    arena->len += sizeof(wire_record) + padded;
}

size_t wire_take(wire_core *core, char **data)
{
    pthread_mutex_lock(&core->mutex);
    wire_arena *arena = &core->arenas[core->landing];
    size_t len = arena->len;
    *data = arena->data;
    if (len) {
        core->landing ^= 1;
        arena = &core->arenas[core->landing];
        arena->len = 0;
        if (arena->cap > 16 * (size_t)WIRE_RECEIVE) {
            free(arena->data);
            arena->data = NULL;
            arena->cap = 0;
        }
    }
    pthread_mutex_unlock(&core->mutex);
    return len;
}

int wire_take_foreign(wire_core *core, wire_foreign *into)
{
    pthread_mutex_lock(&core->mutex);
    int len = core->foreign_len;
    memcpy(into, core->foreign, (size_t)len * sizeof(*into));
    core->foreign_len = 0;
    pthread_mutex_unlock(&core->mutex);
    return len;
}

/* --- descriptors that are only waited for ------------------------------------------------------------------------- */

int wire_control(wire_core *core, int operation, int fd, uint32_t events)
{
    struct epoll_event event;
    event.events = events;
    event.data.u64 = WIRE_FOREIGN | (uint32_t)fd;
    return epoll_ctl(core->epoll, operation, fd, &event) < 0 ? errno : 0;
}
