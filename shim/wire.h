/* The trap protocol: what libappswitch.so (the trap generator) and `appswitch serve` (the trap handler) say to
 * each other, and the names that Unix sockets carry.
 *
 * The compiler reads this file for the shim; cffi reads it (less the lines that begin with '#') for the server.
 * So: only enums with explicit values, fixed-width types and plain structs, with no implicit padding.
 *
 * One request is one SOCK_SEQPACKET message `struct as_request`; one answer is one message `struct as_reply` with
 * up to AS_MOST_FDS file descriptors (SCM_RIGHTS), and another one if it says so. Every frame stands alone, so any
 * channel serves any thread. Both ends are on one machine: integers are in its byte order, ports included. Every IP
 * address is 16 bytes; IPv4 is v4-mapped (RFC 4291 2.5.5.2).
 *
 * A program keeps the shim that it was started with, and may meet a trap handler of another version. So this holds for
 * all of them: a frame begins with the four bytes "ASW" and a digit, its version; in an answer, errno comes next (4
 * bytes). To a request of another version the trap handler answers in that one, with EPROTONOSUPPORT and nothing else.
 */
#ifndef APPSWITCH_WIRE_H
#define APPSWITCH_WIRE_H

#include <stdint.h>

#define AS_LINKS ".links/" /* behind the trap socket's path (appswitch/edge/listeners.py) */

enum {
    AS_MAGIC = 0x31575341, /* "ASW1"; the digit is the protocol's version */
    AS_TOKEN_SIZE = 16,    /* bytes of the bearer token of an app without a network namespace */
    AS_TEXT_SIZE = 1024,   /* bytes of as_request.text and as_reply.text */
    AS_MOST_CAPABILITIES = 8,
    AS_LINK_SIZE = 24,    /* bytes of the name of a socket file */
    AS_MOST_FDS = 11,     /* with one reply: the socket, the epoch page, the counters, capabilities */
    AS_COUNTERS = 1024,   /* uint32_t each: the page in which an app's connects by capability are counted */
    AS_SNDBUF = 2097152,  /* bytes asked for each end of a Unix connection (docs/design.md, "Send buffer") */
    AS_UDP_PORTS = 47000, /* up to here, from 32768 on, the kernel chooses ports in an app's own namespace; up to 61000
                             the trap handler, for sockets that are connected and so live in another one */
    AS_BACKLOG = 4096     /* the least listen(2) backlog of a trapped listener (docs/design.md, "Backlog") */
};

enum as_op {
    AS_BIND = 1,     /* local, flags -> fd: an AF_UNIX socket bound to an as_listener_name */
    AS_LISTEN = 2,   /* id: the bound socket now listens */
    AS_CONNECT = 3,  /* remote, and local when the socket was bound -> fd, kind; text: as_capabilities, if wanted */
    AS_RESOLVE = 4,  /* text: a host name -> text: as_answer; who asks: shim/resolve.c */
    AS_REGISTER = 5, /* text: NUL-separated APPSWITCH_* settings -> token; or text, as APPSWITCH_APP has it: the
                        namespace is known */
    AS_WHO = 6,      /* id: a listener of ours, netns: of a client that it accepted -> text: as_client; or EACCES */
    AS_NAME = 7,     /* id: the cookie of a TCP socket (SO_COOKIE) -> text: as_client_name; or ENOENT: not ours */
    AS_REVERSE = 8,  /* remote: an address -> text: the name that it has; or ENOENT */
    AS_OWN_IPS = 9,  /* -> text: as_own_ips */
    /* UDP (shim/datagrams.h). netns: of the socket that it is about; local: its name. */
    AS_UDP_BIND = 16,    /* local, flags -> kind AS_KERNEL, AS_FREE or AS_FD_UDP */
    AS_UDP_BOUND = 17,   /* local: is bound now */
    AS_UDP_CONNECT = 18, /* local, remote -> fd, kind; text: as_path */
    AS_UDP_SEND = 19     /* local, remote -> fd, kind: how a datagram gets from here to there; text: as_path */
};

enum as_flag {
    AS_REUSEADDR = 1,
    AS_REUSEPORT = 2,
    AS_V6ONLY = 4,
    AS_BOUND = 8,              /* AS_CONNECT: local is meant */
    AS_WANT_CAPABILITIES = 16, /* AS_CONNECT: to do the next connects to there without asking */
    AS_NONBLOCK = 64,          /* AS_CONNECT: don't wait long for room in a full queue */
    AS_WANT_EPOCH = 32,        /* the epoch page isn't mapped yet */
    AS_TOLD = 128              /* AS_RESOLVE: the program has got it by DNS already */
};

enum as_kind {
    AS_NO_FD = 0,
    AS_FD_UNIX = 1, /* connected (or bound) AF_UNIX socket */
    AS_FD_TCP = 2,  /* TCP socket of another namespace, connected or about to be; text: as_client_name, if it has one */
    AS_KERNEL = 3,  /* not ours: the plain system call answers */
    AS_FREE = 16,   /* AS_UDP_BIND: no socket of the app's is there: if the kernel says EADDRINUSE, by SO_REUSEADDR;
                       AS_UDP_SEND: bind it first (local had no port) */
    AS_FD_UDP = 17, /* a UDP socket, to be put in the place of the program's, or (AS_UDP_SEND) to be sent through */
    AS_HOME = 18,   /* a UDP socket of the app's own namespace, to be put in the program's place; then AS_KERNEL */
    AS_LOST = 19    /* AS_UDP_SEND: nobody is there to get it, nor to refuse it */
};

/* What carries a connection, and which end of it is meant. */
enum as_medium {
    AS_UNIX = 0,       /* two Unix sockets that have the name themselves */
    AS_TCP_CLIENT = 1, /* the name of the client's TCP socket */
    AS_TCP_SERVER = 2  /* the name of the server's; a Unix socket with this name delivers it */
};

struct as_addr {
    uint8_t ip[16];
    uint16_t port;
    uint8_t family; /* of the program's socket: 4 or 6 */
    uint8_t zero;
};

struct as_request {
    uint32_t magic;
    uint16_t op;
    uint16_t flags;
    uint8_t token[16];
    uint64_t id;
    uint64_t netns;
    struct as_addr local;
    struct as_addr remote;
    uint16_t text_size;
    uint16_t zero;
    uint32_t patience; /* AS_CONNECT: milliseconds to wait for room in a full queue; 0: as long as the handler likes */
    char text[1024];
};

struct as_reply {
    uint32_t magic;
    int32_t error; /* errno for the program; 0: done; ESRCH: register first */
    uint16_t kind;
    uint16_t text_size;
    uint32_t closes; /* 1: a message of one byte follows once the trap handler has closed the socket that it passes:
                        then the program is the only one that has it, and its close closes it */
    uint8_t token[16];
    char text[1024];
};

/* What AS_CONNECT gives when capabilities were wanted, as text. The descriptors that go along: the connected socket,
 * the epoch page (has_epoch), the page of counters (counters), then an O_PATH descriptor of each listener's socket, in
 * this order. */
struct as_capabilities {
    uint64_t epoch; /* they are good while the epoch page says this */
    uint8_t source_ip[16];
    uint32_t has_epoch;
    uint32_t count;
    uint64_t listener[8];
    uint8_t family[8];  /* 4 or 6, of the listener's socket */
    uint32_t weight[8]; /* how often it is its turn, relative to the others */
    uint32_t slot[8];   /* which counter counts them */
    uint32_t uses;      /* then ask again: there are more instances than these; 0: no need to */
    uint32_t zero;
    uint64_t counters; /* which page of counters it is; 0: none */
    char link[8][24];  /* each listener's socket file in the directory AS_LINKS, NUL-terminated; empty: none */
};

/* What AS_WHO gives as text: the addresses that connections from this namespace may come from, and go to. */
struct as_client {
    uint64_t epoch; /* it is good while the epoch page says this */
    uint8_t ip[16];
    uint8_t alias[16]; /* its identity in the other IP version */
    uint8_t server_ip[16], server_alias[16];
    uint8_t sibling;    /* shares the virtual IP: may show loopback addresses, too */
    uint8_t by_handler; /* the trap handler's own namespace: the name is true if the trap handler connected */
    uint8_t has_epoch;  /* the epoch page goes along */
    uint8_t zero[5];
};

/* What AS_RESOLVE gives as text. The epoch page goes along (has_epoch). */
struct as_answer {
    uint64_t epoch; /* it is good while the epoch page says this, */
    uint32_t ttl;   /* and for so many seconds */
    uint32_t has_epoch;
    uint8_t ip[16];
    char address[48]; /* as text, NUL-terminated; empty: it is no app's */
};

/* What AS_OWN_IPS gives as text: the app's own, its virtual IP and that one's alias. */
struct as_own_ips {
    uint8_t v4[16], v6[16];
};

/* What AS_UDP_CONNECT and AS_UDP_SEND give as text. The epoch page goes along as the last descriptor (has_epoch). */
struct as_path {
    uint64_t epoch; /* it is good while the epoch page says this */
    uint32_t has_epoch;
    uint16_t check; /* AS_KERNEL: good while a socket here gets what comes from source; a sibling's would be next */
    uint16_t source_port;
    uint8_t source_ip[16];
};

/* The name of a bound or listening socket: a path whose last part is "as." and the hexadecimal of this. */
struct as_listener_name {
    uint8_t ip[16];
    uint64_t id;
    uint16_t port;
    uint8_t family;
    uint8_t v6only;
    uint32_t app;   /* whose it is */
    uint32_t salt;  /* of this trap handler and those before it in its state directory, so that one knows its own */
    uint32_t flags; /* AS_REUSEADDR, AS_REUSEPORT, where it was bound with them */
};

/* The name of a client's socket: abstract, this struct as it is. getsockname of the client and getpeername of the
 * server read the same name, so both ends agree on who talks to whom (docs/design.md, "The kernel keeps the state").
 *
 * A TCP connection has one, too; its ends are told it when they are made, and later by AS_NAME. The server's end comes
 * through the app's Unix listener: the trap handler connects with this name and sends one byte and the TCP socket
 * (SCM_RIGHTS), which accept gives to the program (docs/design.md, "TCP on one host").
 */
struct as_client_name {
    uint8_t nul;    /* 0: an abstract name (unix(7)) */
    uint8_t tag[3]; /* "asc" */
    uint32_t salt;  /* of this trap handler, so that two on one host don't meet */
    uint8_t source_ip[16];
    uint8_t dest_ip[16]; /* as the client asked for it */
    uint16_t source_port;
    uint16_t dest_port;
    uint8_t client_family;
    uint8_t server_family;
    uint16_t medium;
    uint32_t app; /* who calls, where the trap handler has connected; else the network namespace tells */
};

#endif
