/* A program that allows itself few system calls: those that it makes, and those that the shim makes for it, as
 * docs/compatibility.md lists them. Any other one kills it. */
#include "filter.h"

static const int allowed[] = {/* of the program's own */
                              SYS_read, SYS_write, SYS_close, SYS_listen, SYS_accept, SYS_exit_group, SYS_rt_sigreturn,
                              /* of the shim's */
                              SYS_socket, SYS_connect, SYS_bind, SYS_accept4, SYS_getsockname, SYS_getpeername,
                              SYS_getsockopt, SYS_setsockopt, SYS_sendmsg, SYS_recvmsg, SYS_recvfrom, SYS_dup3,
                              SYS_fcntl, SYS_fstat, SYS_getpid, SYS_rt_sigprocmask,
                              /* where calls are trapped by notify; and rt_sigreturn */
                              SYS_gettid,
                              /* and before it has made a call for the program */
                              SYS_mmap, SYS_madvise, SYS_getrandom, SYS_prlimit64};

static void meet_all(int listener) {
    meet(VIP, port_of(listener), listener);
    FAILS(CONNECT(tcp(VIP), VIP, 9), ECONNREFUSED);
    FAILS(BIND(tcp(VIP), VIP, port_of(listener)), EADDRINUSE);
}

CASE(before_its_first_call) {
    install(allowed, sizeof allowed / sizeof *allowed, ALLOW, KILL);
    meet_all(listening(VIP, 0));
}

CASE(after_some_calls) {
    int listener = listening(VIP, 0);
    meet(VIP, port_of(listener), listener);
    install(allowed, sizeof allowed / sizeof *allowed, ALLOW, KILL);
    meet_all(listener);
}
