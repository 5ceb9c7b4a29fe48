/* The addresses of this host, as an app without a network namespace sees them. */
#ifndef APPSWITCH_INTERFACES_H
#define APPSWITCH_INTERFACES_H

/* As ioctl(2): a value >= 0 or -errno. */
long do_ioctl(int fd, unsigned long request, void *argument);

#endif
