/* Socket options that an AF_UNIX socket refuses and a TCP socket knows. */
#ifndef APPSWITCH_OPTIONS_H
#define APPSWITCH_OPTIONS_H

#include <sys/socket.h>

#include "names.h"

/* Before `fd` (as the program set it up) is replaced by `target`: gives `target` the same options, or remembers them
 * for it where it is a Unix socket. */
void carry_options(int fd, int target);

/* What an accepted TCP socket has of its listener (`fd`, with the id `listener`), and a Unix socket, or a TCP socket
 * that another listener accepted (is_tcp), hasn't. (For a Unix socket what is remembered of the listener is looked up
 * there, through the name that both have.) */
void inherit_options(int fd, uint64_t listener, int accepted, int is_tcp);

/* Gives an end of a Unix connection AS_SNDBUF, or what net.core.wmem_max allows. */
void raise_sndbuf(int fd);

/* The same for so many bytes. True: it has them, whatever net.core.wmem_max is. */
int set_sndbuf(int fd, int bytes);

/* Told of each new socket and of each setsockopt, so that a socket without options set needs none carried. */
void note_new_socket(int fd);
void note_option(int fd, int level, int name);

/* Whether a fresh socket (fresh.h) can be asked for an option, and be given it. */
int keeps_fresh(int level, int name);

/* getsockopt and setsockopt of a descriptor that is ours, answered as its TCP socket would. 0 or -errno. */
long get_tcp_option(int fd, const struct identity *identity, int level, int name, void *value, socklen_t *size);
long set_tcp_option(int fd, const struct identity *identity, int level, int name, const void *value, socklen_t size);

#endif
