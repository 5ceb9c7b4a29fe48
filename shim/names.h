/* The names of Unix sockets, and the TCP addresses they stand for (DESIGN 3.1: the kernel keeps the state). */
#ifndef APPSWITCH_NAMES_H
#define APPSWITCH_NAMES_H

#include <sys/socket.h>

#include "wire.h"

/* What a descriptor is, as far as its names tell. */
enum role {
    PLAIN,    /* not of AppSwitch */
    FRESH,    /* a TCP socket that is a Unix socket already (fresh.h): neither bound nor connected */
    LISTENER, /* bound by AS_BIND, listening or not */
    CLIENT,   /* the dialling end of a connection */
    ACCEPTED  /* the accepted end of a connection */
};

struct identity {
    enum role role;
    uint16_t plain_family, plain_port; /* PLAIN: the socket's own name, 0 where there is none; port: not 0 once bound */
    struct as_listener_name listener;  /* LISTENER, ACCEPTED; FRESH: the family, all else zero */
    struct as_client_name client;      /* CLIENT, ACCEPTED */
};

/* Reads both names of `fd`; `identity->role` is PLAIN for anything that isn't ours, a bad descriptor included. */
void identify(int fd, struct identity *identity);

/* True when `name` (of `size` bytes) is a client's name; then `client` holds it. */
int read_client_name(const struct sockaddr *name, socklen_t size, struct as_client_name *client);

/* True when `name` is a listener's name; then `listener` holds it. */
int read_listener_name(const struct sockaddr *name, socklen_t size, struct as_listener_name *listener);

/* The family, AF_INET or AF_INET6, that the program believes its descriptor to have. */
int family_of(const struct identity *identity);

/* sockaddr_in or sockaddr_in6 -> `out` (out->family is that of the sockaddr). 0 or -errno, as connect(2) says. */
int read_sockaddr(const struct sockaddr *addr, socklen_t size, struct as_addr *out);

/* The any-address as a destination means this host (ip(7)). */
void any_is_loopback(struct as_addr *addr);

/* The shortest sockaddr_in6 that the kernel takes: without the scope. */
enum { SIN6_LEN_RFC2133 = 24 };

/* Writes the address as `family` (4 or 6) shows it, cut to *size as getsockname(2) cuts; *size gets the full size. */
void write_sockaddr(int family, const uint8_t ip[16], uint16_t port, struct sockaddr *addr, socklen_t *size);

#endif
