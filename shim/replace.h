/* Putting another file under a descriptor that the program already uses. */
#ifndef APPSWITCH_REPLACE_H
#define APPSWITCH_REPLACE_H

/* `fd` becomes what `target` is, `target` is closed. Kept: options, file status flags, close-on-exec, owner and signal,
 * registrations in epoll sets. `status` is fd's F_GETFL. 0 or -errno (then `fd` is as it was). */
long replace(int fd, int target, int status);

/* As `replace`, by a new TCP socket of AF_INET or AF_INET6. */
long replace_by_tcp(int fd, int family, int status);

/* Told of each epoll_ctl(EPOLL_CTL_ADD) of this process, so that `replace` knows where to look. */
void note_epoll_add(int epoll, int fd);

/* Whether `fd` may be in one of them: not, if 0. */
int was_added_to_epoll(int fd);

#endif
