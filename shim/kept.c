#define _GNU_SOURCE
#include "kept.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "sys.h"

enum { HIGH_FD = 1000, ROOM = 4 /* what a process with a small limit keeps at its end */ };

struct kept file_of(int fd) {
    struct stat status = {0};
    sys2(SYS_fstat, fd, &status);
    return (struct kept){fd, status.st_dev, status.st_ino};
}

int is_kept(const struct kept *kept) {
    if (!kept->inode) return 0;
    struct kept now = file_of(kept->fd);
    return now.device == kept->device && now.inode == kept->inode;
}

/* High, yet below what a small limit allows and without a large table of descriptors. */
int move_high(int fd) {
    struct rlimit limit = {HIGH_FD, HIGH_FD};
    sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, &limit);
    long lowest = limit.rlim_cur > HIGH_FD + ROOM ? HIGH_FD : (long)limit.rlim_cur - ROOM;
    if (lowest < 3) lowest = 3;
    long high = sys3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, lowest);
    if (high < 0) return fd;
    sys1(SYS_close, fd);
    return (int)high;
}

/* A table of descriptors that grows while there are several threads makes the one that asks wait some 10 ms
 * (synchronize_rcu in expand_fdtable, fs/file.c). So it grows now, before there are any. */
__attribute__((constructor)) static void grow_table(void) {
    for (int fd = 0; fd < 3; fd++) {
        long high = sys3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, HIGH_FD);
        if (high < 0) continue;
        sys1(SYS_close, high);
        return;
    }
}
