/* Where a client of a gateway comes from, and the name that an instance gets to see (shim/gateway/comer.c). */
#include "gateway/comer.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct comer comer = {.fd = -1};
    size_t half = size / 2;
    memcpy(&comer.peer, data, half < sizeof comer.peer ? half : sizeof comer.peer);
    memcpy(&comer.own, data + half, half < sizeof comer.own ? half : sizeof comer.own);
    struct as_client_name name = name_of(&comer, 7, size % 2 ? 4 : 6);
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (name.nul || memcmp(name.tag, "asc", 3) || name.medium != AS_TCP_SERVER) abort();
    if (comer.peer.ss_family != AF_INET6 && memcmp(name.source_ip, mapped, sizeof mapped)) abort();
    if (name.source_port != port_of(&comer.peer) || name.dest_port != port_of(&comer.own)) abort();
    return 0;
}
