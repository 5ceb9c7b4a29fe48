/* What the calls have in common that ask the trap handler. */
#ifndef APPSWITCH_APPLY_H
#define APPSWITCH_APPLY_H

#include <sys/socket.h>

#include "names.h"
#include "wire.h"

/* identify(), once what is fresh (fresh.h) has become TCP's own. 0 or -errno: it can't. */
long identify_settled(int fd, struct identity *identity);

/* A TCP socket of the app's that is neither bound nor connected: then its family, else 0. */
int unused_tcp_family(int fd, const struct identity *identity);

/* An address for us to look at, copied, for another thread may change it meanwhile; 0: the kernel knows the error. */
const struct sockaddr *copy_inet(const struct sockaddr *addr, socklen_t size, struct sockaddr_storage *copy);

/* Where a name of `full` bytes is to be written. 0, or -errno as getsockname(2) says. */
long check_room(int fd, struct sockaddr *addr, socklen_t *size, socklen_t full);

/* The size of a socket's name. family: 4 or 6. */
socklen_t size_of_name(int family);

/* Asks, and puts what comes back in fd's place. 0 or -errno; *kind tells what it is now. */
long ask_and_replace(int fd, struct as_request *request, int status, int *kind);

#endif
