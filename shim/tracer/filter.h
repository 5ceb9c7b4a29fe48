/* Which calls of a program are trapped: those that the shim hooks, but for data calls; and by notify those that would
 * keep the kernel from telling. */
#ifndef APPSWITCH_TRACER_FILTER_H
#define APPSWITCH_TRACER_FILTER_H

#include "way.h"

/* Whether this kernel knows what the filter for it needs. */
int can_install_filter(const struct way *way);

/* Installs the seccomp filter in this process and what becomes of it. 0 or -errno. */
int install_filter(const struct way *way);

#endif
