/* Sending a datagram to an address, without being connected to it. */
#ifndef APPSWITCH_SENDERS_H
#define APPSWITCH_SENDERS_H

#include <stddef.h>
#include <sys/socket.h>

/* sendto and sendmsg with an address, as those calls return. *ours: false when the socket isn't a UDP socket, or
 * is connected to just this address, and nothing has been done. */
long sendto_by_sender(int fd, const void *data, size_t count, int flags, const struct sockaddr *addr, socklen_t size,
                      int *ours);
long sendmsg_by_sender(int fd, const struct msghdr *message, int flags, int *ours);

/* As sendmsg_by_sender, of a message without an address: it is ours when the socket is connected and a control message
 * asks for another source than its own. */
long sendmsg_from_another_source(int fd, const struct msghdr *message, int flags, int *ours);

/* Told of each setsockopt: senders have the options of the socket that they send for. */
void note_sender_option(int fd);

#endif
