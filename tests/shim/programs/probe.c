/* probe ARG...: says with which arguments and environment it was started, and whether its sockets are trapped. */
#define OWN_MAIN
#include "test.h"

extern char **environ;

int main(int argc, char **argv) {
    for (int i = 0; i < argc; i++) printf("argument %s\n", argv[i]);
    for (char **each = environ; each && *each; each++) printf("environment %s\n", *each);
    int listener = tcp(VIP), client = tcp(VIP);
    if (BIND(listener, VIP, 0) < 0) fail("untrapped: %s", strerror(errno)); /* no address but in its app */
    OK(listen(listener, 5));
    OK(CONNECT(client, VIP, port_of(listener)));
    struct address own = name_of(client), got = {.size = sizeof got.storage};
    int server = OK(accept(listener, &got.any, &got.size));
    TEXT(show(&own), show(&got));
    talk(client, server);
    struct sockaddr_un raw;
    socklen_t size = sizeof raw;
    /* The kernel's own answer, past the shim: the call is made from here. */
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"((long)SYS_getsockname), "D"((long)client), "S"(&raw), "d"(&size)
                     : "rcx", "r11", "memory");
    printf("%s\n", result == 0 && raw.sun_family == AF_UNIX ? "trapped" : "not trapped");
    return 0;
}
