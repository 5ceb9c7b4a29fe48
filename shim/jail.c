/* How it works. A daemon that chroots (haproxy, vsftpd, postfix) no longer finds the trap socket by its path. So chroot
 * is wrapped, and keeps a descriptor of the trap socket's directory. A Unix socket can be connected relative to the
 * working directory, but not to a descriptor: so the thread that needs a channel goes to that directory, connects, and
 * goes back. The working directory is shared by the threads of a process, hence unshare(2) first: from then on this
 * thread has one of its own (it doesn't hear of a later chdir, umask or chroot of another thread). A process with one
 * thread has that already. A child that does it would leave no trace, but haproxy lets itself make none (RLIMIT_NPROC).
 */
#define _GNU_SOURCE
#include "jail.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>

#include "channel.h"
#include "hand_on.h"
#include "kept.h"
#include "settings.h"
#include "sys.h"

static struct kept directory; /* of the trap socket; kept over fork */
static int jailed;

/* The length of the path up to and with its last slash. */
static size_t directory_size(const struct sockaddr_un *trap) {
    size_t size = as_strlen(trap->sun_path);
    while (size && trap->sun_path[size - 1] != '/') size--;
    return size;
}

static void keep_directory(void) {
    struct sockaddr_un path = get_settings()->socket;
    path.sun_path[directory_size(&path)] = 0;
    long fd = sys4(SYS_openat, AT_FDCWD, path.sun_path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd >= 0) directory = file_of(move_high((int)fd));
}

long do_chroot(const char *path) {
    keep_tracer_home();
    if (!own_pid()) return sys1(SYS_chroot, path); /* a vfork child: about to exec */
    if (!is_kept(&directory)) keep_directory();
    long error = sys1(SYS_chroot, path);
    if (error == 0) jailed = 1;
    return error;
}

int is_jailed(void) {
    return jailed;
}

static long connect_from_there(int fd, const struct sockaddr_un *trap, long back) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    const char *last = trap->sun_path + directory_size(trap);
    memcpy(name.sun_path, last, as_strlen(last));
    long error = sys1(SYS_unshare, CLONE_FS);
    if (error == 0) error = sys1(SYS_fchdir, directory.fd);
    if (error) return error;
    error = sys3(SYS_connect, fd, &name, sizeof name);
    sys1(SYS_fchdir, back);
    return error;
}

long connect_from_jail(int fd, const struct sockaddr_un *trap) {
    uint64_t all = ~0ull, before;
    if (!is_kept(&directory)) return -ENOENT;
    long back = sys4(SYS_openat, AT_FDCWD, ".", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (back < 0) return back;
    sys4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof all); /* no handler may find itself elsewhere */
    long error = connect_from_there(fd, trap, back);
    sys4(SYS_rt_sigprocmask, SIG_SETMASK, &before, 0, sizeof before);
    sys1(SYS_close, back);
    return error;
}
