/* Descriptors that the shim keeps among the program's own: high numbers, close-on-exec, never relied upon. */
#ifndef APPSWITCH_KEPT_H
#define APPSWITCH_KEPT_H

#include <stdint.h>

/* A descriptor, and the file that it was: the program may have closed it and got the number for its own. */
struct kept {
    int fd;
    uint64_t device, inode; /* both 0: none */
};

/* What `fd` is now. */
struct kept file_of(int fd);

/* Whether it still is the file that it was. */
int is_kept(const struct kept *kept);

/* Moves a descriptor out of the way of programs that expect the lowest numbers: its new number, close-on-exec; or
 * `fd` itself where there is no room. */
int move_high(int fd);

#endif
