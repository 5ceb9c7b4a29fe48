/* Giving a TCP connection to an instance here, as edge/deliver.py does: by a Unix socket that bears the client's name.
 */
#ifndef APPSWITCH_GATEWAY_DELIVER_H
#define APPSWITCH_GATEWAY_DELIVER_H

#include "wire.h"

/* What one goes by; made before somebody comes, who needn't wait for it then, and for whom a descriptor is there.
 * -errno. */
int make_carrier(void);

/* Whether the instance has it now; `fd` stays the caller's to close, and so does the carrier, which is used up whatever
 * comes of it. handle: an O_PATH descriptor of the listener. */
int deliver(int carrier, int fd, const struct as_client_name *name, int handle);

#endif
