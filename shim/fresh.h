/* TCP sockets that are Unix sockets from the start, where it is likely that they will be clients of apps. */
#ifndef APPSWITCH_FRESH_H
#define APPSWITCH_FRESH_H

#include <sys/socket.h>

/* Such a socket, as socket(2) is asked for one; or -1: the kernel's own is to be made. */
long make_fresh(int family, int type, int protocol);

/* AF_INET or AF_INET6, if `fd` is believed to be one: the number may be another file's by now. Else 0. */
int believed_fresh(int fd);

/* Whether an unnamed Unix socket is one, by what the kernel keeps of it: then its family, else 0. */
int fresh_family(int fd);

/* That `fd` was one and isn't any more, or that another socket has the number. */
void forget_fresh(int fd);

/* If `fd` is one, it becomes TCP's own, in the state of a socket that nothing has been done with but to set its
 * options. Called before all that a Unix socket would do otherwise. Where it can't be made: -errno. */
long settle(int fd);

/* settle() for what is believed to be one; costs nothing else. */
static inline void settle_if_fresh(int fd) {
    if (believed_fresh(fd)) settle(fd);
}

/* A connect has been made without asking: one more reason to expect others. */
void note_connect_by_capability(void);

/* No more are made. */
void make_no_fresh(void);

/* unshare(2) and setns(2): sockets made after them may be another network namespace's, where the kernel answers. */
long do_unshare(int flags);
long do_setns(int fd, int kind);

#endif
