/* chroot(2) before the first use of the network, as daemons do (haproxy, vsftpd, postfix). */
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "test.h"

/* Runs it in a child that has gone into a jail, with "/within" as its working directory. */
static void in_jail(void (*run)(void)) {
    char directory[] = "/tmp/jail-XXXXXX";
    CHECK(mkdtemp(directory));
    OK(chmod(directory, 0755));
    OK(chdir(directory));
    OK(mkdir("within", 0755));
    pid_t child = IN_CHILD({
        OK(chroot("."));
        OK(chdir("/within"));
        run();
    });
    end_well(child);
    OK(rmdir("within"));
    OK(rmdir(directory));
}

static void still_within(void) {
    struct stat here, there;
    OK(stat(".", &here));
    OK(stat("/within", &there));
    SAME(here.st_ino, there.st_ino);
}

static void serve_and_dial(void) {
    struct pair pair = connected("127.0.0.1");
    talk(pair.client, pair.server);
    still_within();
    FAILS(CONNECT(tcp("127.0.0.1"), "127.0.0.1", 9), ECONNREFUSED);
}

CASE(serves_and_dials) {
    in_jail(serve_and_dial);
}

static void fork_and_dial(void) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener);
    for (int i = 0; i < 3; i++) {
        pid_t child = IN_CHILD({
            for (int k = 0; k < 4; k++) close(dial("127.0.0.1", port));
            close(listening("127.0.0.1", 0));
            still_within();
        });
        for (int k = 0; k < 4; k++) close(OK(accept(listener, 0, 0)));
        end_well(child);
    }
}

CASE(forked_children) {
    in_jail(fork_and_dial);
}

/* haproxy: no privileges left, and no process may be made. */
static void give_up_all(void) {
    struct rlimit none = {0, 0};
    OK(setgid(65534));
    OK(setuid(65534));
    OK(setrlimit(RLIMIT_NPROC, &none));
    serve_and_dial();
}

CASE(nobody_who_may_make_no_process) {
    in_jail(give_up_all);
}

static int port;

static void *dial_from_thread(void *unused) {
    for (int i = 0; i < 5; i++) {
        close(dial("127.0.0.1", port));
        still_within();
    }
    return unused;
}

static void dial_from_threads(void) {
    pthread_t all[16];
    int listener = listening("127.0.0.1", 0);
    port = port_of(listener);
    for (int i = 0; i < 16; i++) CHECK(pthread_create(&all[i], 0, dial_from_thread, 0) == 0);
    for (int i = 0; i < 16 * 5; i++) close(OK(accept(listener, 0, 0)));
    for (int i = 0; i < 16; i++) pthread_join(all[i], 0);
    still_within();
}

CASE(threads) {
    in_jail(dial_from_threads);
}

static void enter_again(void) {
    OK(syscall(SYS_chroot, ".."));
    serve_and_dial();
}

CASE(a_jail_in_the_jail) {
    in_jail(enter_again);
}

CASE(one_that_fails) {
    FAILS(chroot("/nothing/there"), ENOENT);
    FAILS(chroot("/etc/passwd"), ENOTDIR);
    FAILS(chroot((char *)1), EFAULT);
    FAILS(syscall(SYS_chroot, "/nothing/there"), ENOENT);
    int listener = listening("127.0.0.1", 0);
    meet("127.0.0.1", port_of(listener), listener);
}
