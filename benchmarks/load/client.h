/* One end of many websockets: non-blocking sockets, TLS if wanted, and as much of RFC 6455 as a load needs. */
#ifndef CLIENT_H
#define CLIENT_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

enum opcode { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

/* What is the same for all connections. */
struct settings {
    const char *host, *path;
    int port;
    bool tls, deflate;
    bool may_close; /* whether the server may close a connection without that being the end of the run */
    int poller;
};

enum state { CONNECTING, SECURING, UPGRADING, OPEN, CLOSED };

struct connection {
    int fd;
    enum state state;
    SSL *tls;
    char *answer; /* to the handshake, while it comes */
    size_t answer_size;
    unsigned char head[10]; /* of a frame, while it comes */
    unsigned head_size;
    int opcode;
    uint64_t length, left;      /* of the payload; what has not come yet */
    unsigned char control[131]; /* a Ping's payload, then the Pong that is to be sent */
    size_t control_size;
    bool pong_due, awaits_room;
    size_t queued, position; /* bytes of the outgoing frames that wait; where in a frame they begin */
    double *sent;            /* when the messages in flight were sent, as a ring */
    unsigned first, waiting;
};

/* What is sent again and again: one frame, and as many copies of it as may leave in one write. */
struct burst {
    unsigned char *bytes;
    size_t frame_size, size;
};

extern struct settings settings;

/* The clock, in seconds. */
double now(void);

/* Prints a line on stderr and ends the program. */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Writes the frame of a client's message; returns its size, at most 14 more than the payload's. */
size_t build_frame(unsigned char *frame, int first_byte, const unsigned char *payload, size_t size);

/* Makes a burst of messages of the size; with deflate, of text as applications send it, compressed. */
struct burst make_burst(size_t size, unsigned count);

/* Begins to connect. Source addresses change with `index`, so that ports don't run out. */
void dial(struct connection *connection, int index);

/* Goes on with what comes before the websocket is open; true when it has become open. */
bool advance(struct connection *connection);

/* Reads once; returns how many messages have ended, -1 if the connection has. */
int receive(struct connection *connection);

/* Queues messages of a burst, and writes what the socket takes. */
void send_burst(struct connection *connection, const struct burst *burst, unsigned count);

/* Writes what waits. To be called when the socket is writable. */
void flush(struct connection *connection, const struct burst *burst);

/* Closes without ceremony. */
void drop(struct connection *connection);

/* Reads or writes what is possible now; 0 if nothing is, -1 at the end. */
ssize_t transport_read(struct connection *connection, void *buffer, size_t size);
ssize_t transport_write(struct connection *connection, const void *data, size_t size);

#endif
