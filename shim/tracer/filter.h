/* Which calls of a program stop for the tracer: those that the shim hooks, but for data calls. */
#ifndef APPSWITCH_TRACER_FILTER_H
#define APPSWITCH_TRACER_FILTER_H

/* Installs the seccomp filter in this process and what becomes of it. 0 or -errno. */
int install_filter(void);

#endif
