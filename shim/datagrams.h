/* UDP: a socket lives in the network namespace of the app that receives (docs/design.md, "UDP"). */
#ifndef APPSWITCH_DATAGRAMS_H
#define APPSWITCH_DATAGRAMS_H

#include <stdint.h>
#include <sys/socket.h>

#include "names.h"
#include "wire.h"

/* A UDP socket: then its family, else 0. */
int udp_family(int fd, const struct identity *identity);

/* bind and connect of a UDP socket of `family`. 0 or -errno. */
long bind_udp(int fd, int family, const struct sockaddr *addr, socklen_t size);
long connect_udp(int fd, int family, const struct sockaddr *addr, socklen_t size);

/* A descriptor under this number is new. */
void note_new_datagrams(int fd);

/* True when `fd` was connected to a socket of another app by this process, and that may be over: then `check_connected`
 * has to be called before something is sent. `refused`: ask in any case. 0, or -errno for the program. */
int may_be_over(int fd);
long check_connected(int fd, int refused);
int was_placed(int fd);

/* Whether SO_REUSEADDR is set on `fd` by us, not by the program: see datagrams.c. */
int reuse_is_ours(int fd);

/* To be called after the program has set SO_REUSEADDR on `fd`: it stays set once bound, and is the program's if it was.
 */
void keep_reusable(int fd);

/* The text of an answer to AS_UDP_CONNECT or AS_UDP_SEND; the epoch page that came along is mapped, and closed. */
struct passed;
void take_path(const struct as_reply *reply, struct passed *passed, struct as_path *path);

/* What is asked about `fd`: its name and its namespace. The port of its name; 0: not bound. */
int describe_udp(int fd, int family, struct as_request *request);

#endif
