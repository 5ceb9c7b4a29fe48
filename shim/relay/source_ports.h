/* The ports that connections to other hosts come from: those that were used before are used anew.
 *
 * Who closes first keeps its port for 60 s (TIME-WAIT, RFC 9293, 3.6.1), and at a gateway that is the relay, when
 * clients do. The kernel chooses none of these ports, and looks ever longer for another one: with 470 clients a second
 * that close first it would find none in the end. To a socket that is bound it gives such a port all the same, where
 * both hosts use timestamps, which tell late segments apart (PAWS, RFC 7323, 5; tcp_twsk_unique in the kernel).
 */
#ifndef APPSWITCH_RELAY_SOURCE_PORTS_H
#define APPSWITCH_RELAY_SOURCE_PORTS_H

#include <stdbool.h>

/* Before all else. */
void open_ports(void);

/* The socket gets the port that was used longest ago, if there are many. False: the kernel is to choose. One at a time:
 * until note_port, or skip_port, it is the same port. */
bool bind_to_used(int fd, int family);

/* That one is in use still: connect says EADDRNOTAVAIL. Next the kernel is to choose. */
void skip_port(void);

/* It connects; its port is the one that was used last. bound: bind_to_used's word on it. */
void note_port(int fd, bool bound);

#endif
