/* Programs that chroot: the way to the trap socket from inside. */
#ifndef APPSWITCH_JAIL_H
#define APPSWITCH_JAIL_H

#include <sys/un.h>

/* chroot(2), after the way back to the trap socket is kept. */
long do_chroot(const char *path);

/* Whether this process, or the one it was forked from, has called chroot. */
int is_jailed(void);

/* connect(2) to `trap`, a path as it was outside. */
long connect_from_jail(int fd, const struct sockaddr_un *trap);

#endif
