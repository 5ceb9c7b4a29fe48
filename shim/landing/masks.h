/* System calls that could make SIGSYS go astray, which tells of a call that is trapped (sigsys.c). */
#ifndef APPSWITCH_MASKS_H
#define APPSWITCH_MASKS_H

/* Whether it is one of them. */
int concerns_signals(long call);

/* It, but for what it would do to SIGSYS. A value >= 0 or -errno. */
long do_signals(long call, const long arg[6]);

#endif
