/* Giving a TCP connection to an instance here, as edge/deliver.py does: by a Unix socket that bears the client's name.
 */
#ifndef APPSWITCH_GATEWAY_DELIVER_H
#define APPSWITCH_GATEWAY_DELIVER_H

#include "wire.h"

/* Whether the instance has it now; `fd` stays the caller's to close. handle: an O_PATH descriptor of its listener. */
int deliver(int fd, const struct as_client_name *name, int handle);

/* The same in two steps: what it goes by is made before somebody comes, who needn't wait for it then, and for whom a
 * descriptor is there. -errno; the carrier is used up whatever deliver_by says, and the caller's to close. */
int make_carrier(void);
int deliver_by(int carrier, int fd, const struct as_client_name *name, int handle);

#endif
