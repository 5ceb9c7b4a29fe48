/* A library of someone else's that is preloaded, too: its constructor runs before ours, and uses sockets. */
#define OWN_MAIN
#include "test.h"

__attribute__((constructor)) static void call_early(void) {
    char name[200] = "";
    ssize_t size = readlink("/proc/self/exe", name, sizeof name - 1);
    if (size < 0 || !strstr(name, "probe")) return;
    int listener = listening("127.0.0.1", 0), client = dial("127.0.0.1", port_of(listener));
    int server = OK(accept(listener, 0, 0));
    struct address peer = peer_of(client), from = peer_of(server), own = name_of(client), bound = name_of(listener);
    TEXT(show(&peer), show(&bound));
    TEXT(show(&from), show(&own));
    OK(set(client, IPPROTO_TCP, TCP_NODELAY, 1));
    talk(client, server);
    close(client);
    close(server);
    close(listener);
    puts("called early");
}
