/* A way to trap a program's calls. */
#ifndef APPSWITCH_TRACER_WAY_H
#define APPSWITCH_TRACER_WAY_H

struct way {
    /* Begins to trace a process, which goes on running. 0 or -errno. */
    int (*seize)(int pid);

    /* Then: what it takes that the process's calls, and those of all that it starts, are trapped. `ended` gets a byte
     * when nobody need look whether we were killed: the process has ended by itself, or needs us no more. 0 or -errno.
     */
    int (*follow)(int pid, int ended);
};

/* By the tracer, until the last of them has ended: a thread stops for it at each such call (trace.c). */
extern const struct way by_ptrace;

/* By the kernel, which tells the thread itself: the tracer is needed to begin a program only (notify.c). */
extern const struct way by_notify;

#endif
