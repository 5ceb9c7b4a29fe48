/* The names of Unix sockets, which anybody may have given them, and the addresses that a program gives (shim/names.c):
 * what is read is within what there is, and what is written within the room that was told. */
#include "names.h"

#include "fresh.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

/* Looks at a socket, of which there is none here. */
int fresh_family(int fd) {
    (void)fd;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct as_client_name client;
    struct as_listener_name listener;
    struct as_addr read;
    struct sockaddr_un name = {0}; /* as the kernel fills it: 3 bytes more than there is room for are told, too */
    if (size < 2) return 0;
    memcpy(&name, data, size < sizeof name ? size : sizeof name);
    socklen_t told = (socklen_t)(size < sizeof name + 1 ? size : sizeof name + 1);
    read_client_name((struct sockaddr *)&name, told, &client);
    read_listener_name((struct sockaddr *)&name, told, &listener);

    struct sockaddr_storage copy = {0}; /* as apply.c has it */
    memcpy(&copy, data, size < sizeof copy ? size : sizeof copy);
    if (read_sockaddr((struct sockaddr *)&copy, (socklen_t)size, &read) == 0) {
        any_is_loopback(&read);
        for (socklen_t room = 0; room < 32; room += 1 + data[1] % 8) {
            char *exact = malloc(room ? room : 1);
            socklen_t given = room;
            write_sockaddr(read.family, read.ip, read.port, (struct sockaddr *)exact, &given);
            if (given != sizeof(struct sockaddr_in) && given != sizeof(struct sockaddr_in6)) abort();
            free(exact);
        }
    }
    return 0;
}
