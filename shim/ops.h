/* What each trapped call does: is it ours? else the raw call; ask the trap handler; apply the answer.
 * Each returns what the system call would: a value >= 0 or -errno. */
#ifndef APPSWITCH_OPS_H
#define APPSWITCH_OPS_H

#include <sys/socket.h>

struct mmsghdr;

long do_socket(int family, int type, int protocol);
long do_bind(int fd, const struct sockaddr *addr, socklen_t size);
long do_listen(int fd, int backlog);
long do_connect(int fd, const struct sockaddr *addr, socklen_t size);
long do_accept(int fd, struct sockaddr *addr, socklen_t *size, int flags);
long do_getsockname(int fd, struct sockaddr *addr, socklen_t *size);
long do_getpeername(int fd, struct sockaddr *addr, socklen_t *size);
long do_getsockopt(int fd, int level, int name, void *value, socklen_t *size);
long do_setsockopt(int fd, int level, int name, const void *value, socklen_t size);
long do_sendto(int fd, const void *data, size_t count, int flags, const struct sockaddr *addr, socklen_t size);
long do_sendmsg(int fd, const struct msghdr *message, int flags);
long do_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags);
long do_recvfrom(int fd, void *data, size_t count, int flags, struct sockaddr *addr, socklen_t *size);
long do_recvmsg(int fd, struct msghdr *message, int flags);
long do_epoll_ctl(int epoll, int op, int fd, void *event);

#endif
