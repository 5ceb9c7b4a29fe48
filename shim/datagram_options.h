/* The socket options of UDP. */
#ifndef APPSWITCH_DATAGRAM_OPTIONS_H
#define APPSWITCH_DATAGRAM_OPTIONS_H

/* Gives the UDP socket `target` the options that `fd`, another one, has. */
void carry_datagram_options(int fd, int target);

#endif
