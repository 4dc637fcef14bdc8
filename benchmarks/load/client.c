#define _GNU_SOURCE
#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

enum { CONNECTIONS_AN_ADDRESS = 20000, BUFFER = 1 << 18 };

struct settings settings = {.host = "127.0.0.1", .path = "/ws"};

double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

/* --- frames ------------------------------------------------------------------------------------------------------ */

size_t build_frame(unsigned char *frame, int first_byte, const unsigned char *payload, size_t size)
{
    static const unsigned char key[4] = {0x12, 0x34, 0x56, 0x78};
    size_t head = 2;
    frame[0] = first_byte;
    if (size < 126) {
        frame[1] = 0x80 | size;
    } else if (size < 65536) {
        frame[1] = 0x80 | 126;
        frame[2] = size >> 8;
        frame[3] = size;
        head = 4;
    } else {
        frame[1] = 0x80 | 127;
        for (int i = 0; i < 8; i++)
            frame[2 + i] = (uint64_t)size >> (56 - 8 * i);
        head = 10;
    }
    memcpy(frame + head, key, 4);
    head += 4;
    for (size_t i = 0; i < size; i++)
        frame[head + i] = payload[i] ^ key[i & 3];
    return head + size;
}

/* Fills the payload with JSON as a chat or a ticker sends it. */
static void fill_with_json(unsigned char *payload, size_t size)
{
    static const char *const words[] = {"alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel"};
    unsigned number = 12345;
    size_t used = 0;
    while (used < size) {
        char item[96];
        number = number * 1103515245 + 12345;
        int length = snprintf(item, sizeof item, "{\"user\": \"%s\", \"id\": %u, \"text\": \"%s %s\", \"at\": %u.%03u}, ",
                              words[number >> 8 & 7], number >> 16, words[number >> 11 & 7], words[number >> 14 & 7],
                              1700000000 + (number >> 20), number >> 22);
        size_t take = (size_t)length < size - used ? (size_t)length : size - used;
        memcpy(payload + used, item, take);
        used += take;
    }
}

/* Compresses in place as RFC 7692 wants a message, on its own; returns the size. */
static size_t deflate_message(unsigned char **payload, size_t size)
{
    z_stream stream = {.next_in = *payload, .avail_in = size};
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        fail("zlib does not start");
    size_t room = deflateBound(&stream, size) + 16;
    unsigned char *result = malloc(room);
    stream.next_out = result;
    stream.avail_out = room;
    deflate(&stream, Z_SYNC_FLUSH);
    size_t used = room - stream.avail_out - 4; /* without the empty block at its end */
    deflateEnd(&stream);
    free(*payload);
    *payload = result;
    return used;
}

struct burst make_burst(size_t size, unsigned count)
{
    unsigned char *payload = malloc(size + 1);
    int first_byte = 0x80 | (size > 1000 && !settings.deflate ? BINARY : TEXT);
    if (settings.deflate) {
        fill_with_json(payload, size);
        size = deflate_message(&payload, size);
        first_byte |= 0x40;
    } else {
        memset(payload, 'x', size);
    }
    unsigned copies = count ? count : 1;
    struct burst burst = {.bytes = malloc((size + 14) * copies)};
    burst.frame_size = build_frame(burst.bytes, first_byte, payload, size);
    for (unsigned i = 1; i < copies; i++)
        memcpy(burst.bytes + i * burst.frame_size, burst.bytes, burst.frame_size);
    burst.size = burst.frame_size * copies;
    free(payload);
    return burst;
}

/* --- the transport ----------------------------------------------------------------------------------------------- */

static SSL_CTX *tls_context(void)
{
    static SSL_CTX *context;
    if (!context) {
        context = SSL_CTX_new(TLS_client_method());
        if (!context)
            fail("OpenSSL does not start");
        SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
    }
    return context;
}

ssize_t transport_read(struct connection *connection, void *buffer, size_t size)
{
    if (connection->tls) {
        int got = SSL_read(connection->tls, buffer, size);
        if (got > 0)
            return got;
        int error = SSL_get_error(connection->tls, got);
        return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
    ssize_t got = read(connection->fd, buffer, size);
    if (got > 0)
        return got;
    return got < 0 && errno == EAGAIN ? 0 : -1;
}

ssize_t transport_write(struct connection *connection, const void *data, size_t size)
{
    if (connection->tls) {
        int taken = SSL_write(connection->tls, data, size);
        if (taken > 0)
            return taken;
        int error = SSL_get_error(connection->tls, taken);
        return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
    ssize_t taken = write(connection->fd, data, size);
    if (taken >= 0)
        return taken;
    return errno == EAGAIN ? 0 : -1;
}

static void watch(struct connection *connection, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};
    epoll_ctl(settings.poller, operation, connection->fd, &event);
}

void dial(struct connection *connection, int index)
{
    double *ring = connection->sent;
    memset(connection, 0, sizeof *connection);
    connection->sent = ring;
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (connection->fd < 0)
        fail("socket: %s", strerror(errno));
    int yes = 1;
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (index >= CONNECTIONS_AN_ADDRESS) {
        struct sockaddr_in source = {.sin_family = AF_INET};
        source.sin_addr.s_addr = htonl(0x7f000002 + index / CONNECTIONS_AN_ADDRESS);
        bind(connection->fd, (struct sockaddr *)&source, sizeof source);
    }
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(settings.port)};
    inet_pton(AF_INET, settings.host, &target.sin_addr);
    if (connect(connection->fd, (struct sockaddr *)&target, sizeof target) < 0 && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    watch(connection, EPOLL_CTL_ADD, EPOLLOUT);
}

void drop(struct connection *connection)
{
    if (connection->tls)
        SSL_free(connection->tls);
    connection->tls = NULL;
    free(connection->answer);
    connection->answer = NULL;
    if (connection->fd >= 0)
        close(connection->fd);
    connection->fd = -1;
    connection->state = CLOSED;
}

/* --- opening ----------------------------------------------------------------------------------------------------- */

static void ask(struct connection *connection)
{
    char request[1024];
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                        settings.path, settings.host, settings.port,
                        settings.deflate ? "Sec-WebSocket-Extensions: permessage-deflate\r\n" : "");
    if (transport_write(connection, request, size) != size)
        fail("the request can't be sent");
    connection->state = UPGRADING;
    watch(connection, EPOLL_CTL_MOD, EPOLLIN);
}

static int feed(struct connection *connection, const unsigned char *data, size_t size);

/* Takes a part of the answer; the bytes behind its head are frames. */
static bool take_answer(struct connection *connection, const char *data, size_t size)
{
    connection->answer = realloc(connection->answer, connection->answer_size + size + 1);
    memcpy(connection->answer + connection->answer_size, data, size);
    connection->answer_size += size;
    connection->answer[connection->answer_size] = 0;
    char *end = memmem(connection->answer, connection->answer_size, "\r\n\r\n", 4);
    if (!end)
        return false;
    if (strncmp(connection->answer, "HTTP/1.1 101", 12))
        fail("refused: %.80s", connection->answer);
    if (settings.deflate && !strcasestr(connection->answer, "permessage-deflate"))
        fail("the server does not compress");
    connection->state = OPEN;
    char *answer = connection->answer;
    connection->answer = NULL;
    feed(connection, (unsigned char *)end + 4, answer + connection->answer_size - (end + 4));
    free(answer);
    return true;
}

bool advance(struct connection *connection)
{
    if (connection->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error)
            fail("connect: %s", strerror(error));
        if (!settings.tls) {
            ask(connection);
            return false;
        }
        connection->tls = SSL_new(tls_context());
        SSL_set_fd(connection->tls, connection->fd);
        connection->state = SECURING;
        watch(connection, EPOLL_CTL_MOD, EPOLLIN);
    }
    if (connection->state == SECURING) {
        int done = SSL_connect(connection->tls);
        if (done == 1)
            ask(connection);
        else if (SSL_get_error(connection->tls, done) != SSL_ERROR_WANT_READ)
            fail("TLS does not come about");
        return false;
    }
    char buffer[4096];
    ssize_t got;
    while ((got = transport_read(connection, buffer, sizeof buffer)) > 0) {
        if (take_answer(connection, buffer, got))
            return true;
        if (!connection->tls)
            break;
    }
    if (got < 0)
        fail("closed within the handshake");
    return false;
}

/* --- receiving --------------------------------------------------------------------------------------------------- */

/* Takes bytes of a frame's head; returns how many, and sets what it says once it is whole. */
static size_t take_head(struct connection *connection, const unsigned char *data, size_t size)
{
    size_t used = 0;
    unsigned char *head = connection->head;
    for (;;) {
        unsigned wanted = 2;
        if (connection->head_size >= 2)
            wanted = (head[1] & 127) < 126 ? 2 : (head[1] & 127) == 126 ? 4 : 10;
        if (connection->head_size >= 2 && connection->head_size == wanted)
            break;
        if (used == size)
            return used;
        head[connection->head_size++] = data[used++];
    }
    uint64_t length = head[1] & 127;
    if (connection->head_size > 2) {
        length = 0;
        for (unsigned i = 2; i < connection->head_size; i++)
            length = length << 8 | head[i];
    }
    connection->opcode = head[0] & 15;
    connection->length = connection->left = length;
    connection->control_size = connection->opcode == PING ? 0 : connection->control_size;
    return used;
}

/* Ends a frame; returns 1 for the last one of a message, -1 for a Close. */
static int end_frame(struct connection *connection)
{
    bool final = connection->head[0] & 0x80;
    connection->head_size = 0;
    if (connection->opcode == CLOSE)
        return -1;
    if (connection->opcode == PING) {
        unsigned char payload[125];
        size_t size = connection->control_size;
        memcpy(payload, connection->control, size);
        connection->control_size = build_frame(connection->control, 0x80 | PONG, payload, size);
        connection->pong_due = true;
        return 0;
    }
    return final && connection->opcode != PONG;
}

/* Takes what was received; returns how many messages have ended, -1 for a Close. */
static int feed(struct connection *connection, const unsigned char *data, size_t size)
{
    int messages = 0;
    while (size) {
        unsigned known = connection->head_size;
        bool whole = known >= 2 && connection->left;
        if (!whole) {
            size_t used = take_head(connection, data, size);
            data += used;
            size -= used;
            unsigned char second = connection->head[1] & 127;
            if (connection->head_size < (second < 126 ? 2u : second == 126 ? 4u : 10u))
                break;
        }
        size_t part = connection->left < size ? connection->left : size;
        if (connection->opcode == PING && connection->control_size + part <= 125) {
            memcpy(connection->control + connection->control_size, data, part);
            connection->control_size += part;
        }
        data += part;
        size -= part;
        connection->left -= part;
        if (connection->left)
            break;
        int ended = end_frame(connection);
        if (ended < 0)
            return -1;
        messages += ended;
    }
    return messages;
}

int receive(struct connection *connection)
{
    static unsigned char buffer[BUFFER];
    int messages = 0;
    for (;;) {
        ssize_t got = transport_read(connection, buffer, sizeof buffer);
        int ended = got > 0 ? feed(connection, buffer, got) : 0;
        if (got < 0 || ended < 0) {
            if (!settings.may_close)
                fail("closed by the server");
            return -1;
        }
        messages += ended;
        if (connection->tls ? got == 0 : (size_t)got < sizeof buffer)
            break;
    }
    if (connection->pong_due && !connection->queued)
        flush(connection, NULL);
    return messages;
}

/* --- sending ----------------------------------------------------------------------------------------------------- */

static void await_room(struct connection *connection, bool wanted)
{
    if (connection->awaits_room != wanted) {
        connection->awaits_room = wanted;
        watch(connection, EPOLL_CTL_MOD, wanted ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
}

void flush(struct connection *connection, const struct burst *burst)
{
    for (;;) {
        if (connection->pong_due && connection->position == 0) {
            if (transport_write(connection, connection->control, connection->control_size) <= 0)
                break;
            connection->pong_due = false;
        }
        if (!connection->queued || !burst)
            break;
        size_t part = burst->size - connection->position;
        if (part > connection->queued)
            part = connection->queued;
        ssize_t taken = transport_write(connection, burst->bytes + connection->position, part);
        if (taken <= 0) {
            if (taken < 0 && !settings.may_close)
                fail("the server does not take any more");
            break;
        }
        connection->queued -= taken;
        connection->position = (connection->position + taken) % burst->frame_size;
    }
    await_room(connection, connection->queued > 0);
}

void send_burst(struct connection *connection, const struct burst *burst, unsigned count)
{
    connection->queued += count * burst->frame_size;
    if (!connection->awaits_room)
        flush(connection, burst);
}
