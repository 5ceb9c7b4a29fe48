/* Giving a TCP connection to an instance here, as edge/deliver.py does: by a Unix socket that bears the client's name.
 */
#ifndef APPSWITCH_GATEWAY_DELIVER_H
#define APPSWITCH_GATEWAY_DELIVER_H

#include "wire.h"

/* Whether the instance has it now; `fd` stays the caller's to close. handle: an O_PATH descriptor of its listener. */
int deliver(int fd, const struct as_client_name *name, int handle);

#endif
