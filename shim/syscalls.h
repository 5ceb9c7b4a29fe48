/* A system call by its number, as syscall(2) and the tracer (landing.c) get them. */
#ifndef APPSWITCH_SYSCALLS_H
#define APPSWITCH_SYSCALLS_H

/* The do_* of the call, or the call itself where there is none. A value >= 0 or -errno. */
long do_syscall(long number, const long arg[6]);

#endif
