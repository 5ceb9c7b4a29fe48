/* Host names where libc doesn't ask the DNS socket of a namespace (DESIGN 3.6): where there is no namespace (spawn
 * --no-netns, LD_PRELOAD alone), and where a name service has a Unix socket, which no network namespace hides. Both ask
 * the host's name servers, which know no app. So a name is asked of the trap handler first; if an app has it, libc's
 * own function is called with the address in its place, and makes the result as it always does. The other way round for
 * getnameinfo and gethostbyaddr.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <unistd.h>

#include "channel.h"
#include "hooks.h"
#include "libc.h"
#include "names.h"
#include "settings.h"
#include "sys.h"

static int goes_round_dns(void) {
    /* glibc's nscd client (_PATH_NSCDSOCKET), and nss-resolve of systemd-resolved */
    static const char *const services[] = {"/var/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve"};
    if (!get_settings()->in_namespace) return 1;
    for (size_t i = 0; i < sizeof services / sizeof *services; i++)
        if (sys3(SYS_faccessat, AT_FDCWD, services[i], F_OK) == 0) return 1;
    return 0;
}

/* Asks, and ends the answer's text with NUL. False: there is none. */
static int ask_text(struct as_request *request, struct as_reply *reply) {
    struct passed passed;
    if (ask(request, reply, &passed) < 0) return 0;
    close_passed(&passed, 0);
    if (!reply->text_size || reply->text_size >= AS_TEXT_SIZE) return 0;
    reply->text[reply->text_size] = 0;
    return 1;
}

/* The app's address as text, in `reply`, or `name` as it is. */
static const char *app_address(const char *name, struct as_reply *reply) {
    struct as_request request;
    size_t size = name ? as_strlen(name) : 0;
    if (!size || size >= AS_TEXT_SIZE || !goes_round_dns()) return name;
    new_request(&request, AS_RESOLVE);
    memcpy(request.text, name, size);
    request.text_size = (uint16_t)size;
    return ask_text(&request, reply) ? reply->text : name;
}

HOOK int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
    struct as_reply reply;
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = next("getaddrinfo");
    return real ? real(app_address(node, &reply), service, hints, result) : EAI_SYSTEM;
}

HOOK struct hostent *gethostbyname(const char *name) {
    struct as_reply reply;
    struct hostent *(*real)(const char *) = next("gethostbyname");
    return real ? real(app_address(name, &reply)) : 0;
}

HOOK struct hostent *gethostbyname2(const char *name, int family) {
    struct as_reply reply;
    struct hostent *(*real)(const char *, int) = next("gethostbyname2");
    return real ? real(app_address(name, &reply), family) : 0;
}

HOOK int gethostbyname_r(const char *name, struct hostent *entry, char *buffer, size_t size, struct hostent **result,
                         int *error) {
    struct as_reply reply;
    int (*real)(const char *, struct hostent *, char *, size_t, struct hostent **, int *) = next("gethostbyname_r");
    return real ? real(app_address(name, &reply), entry, buffer, size, result, error) : -1;
}

HOOK int gethostbyname2_r(const char *name, int family, struct hostent *entry, char *buffer, size_t size,
                          struct hostent **result, int *error) {
    struct as_reply reply;
    int (*real)(const char *, int, struct hostent *, char *, size_t, struct hostent **, int *) =
        next("gethostbyname2_r");
    return real ? real(app_address(name, &reply), family, entry, buffer, size, result, error) : -1;
}

typedef int nameinfo_function(const struct sockaddr *, socklen_t, char *, socklen_t, char *, socklen_t, int);

HOOK int getnameinfo(const struct sockaddr *addr, socklen_t size, char *host, socklen_t host_size, char *service,
                     socklen_t service_size, int flags) {
    struct as_request request;
    struct as_reply reply;
    nameinfo_function *real = next("getnameinfo");
    if (!real) return EAI_SYSTEM;
    new_request(&request, AS_REVERSE);
    if (!host || !host_size || flags & NI_NUMERICHOST || (addr->sa_family != AF_INET && addr->sa_family != AF_INET6) ||
        !goes_round_dns() || read_sockaddr(addr, size, &request.remote) < 0 || !ask_text(&request, &reply))
        return real(addr, size, host, host_size, service, service_size, flags);
    if (reply.text_size >= host_size) return EAI_OVERFLOW;
    memcpy(host, reply.text, reply.text_size + 1u);
    return service && service_size ? real(addr, size, 0, 0, service, service_size, flags) : 0;
}

/* What the hostent of an app's address points at. */
struct pointed_at {
    char *aliases[1], *addresses[2];
    uint8_t address[16];
    char name[AS_TEXT_SIZE];
};

enum { UNKNOWN = -1 };

/* The app that has an address, as gethostbyaddr_r gives it: 0, ERANGE, or UNKNOWN, then libc is asked. */
static int app_entry(const void *address, socklen_t size, int family, struct hostent *entry, char *buffer,
                     size_t room) {
    struct as_request request;
    struct as_reply reply;
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } name = {.any.sa_family = (sa_family_t)family};
    int is_v6 = family == AF_INET6;
    if ((!is_v6 && family != AF_INET) || size != (is_v6 ? 16 : 4) || !goes_round_dns()) return UNKNOWN;
    memcpy(is_v6 ? (void *)&name.in6.sin6_addr : (void *)&name.in.sin_addr, address, size);
    new_request(&request, AS_REVERSE);
    if (read_sockaddr(&name.any, sizeof name, &request.remote) < 0 || !ask_text(&request, &reply)) return UNKNOWN;
    size_t unaligned = -(uintptr_t)buffer % sizeof(char *);
    if (room < unaligned + offsetof(struct pointed_at, name) + reply.text_size + 1) return ERANGE;
    struct pointed_at *at = (struct pointed_at *)(buffer + unaligned);
    at->aliases[0] = at->addresses[1] = 0;
    at->addresses[0] = (char *)at->address;
    memcpy(at->address, address, size);
    memcpy(at->name, reply.text, reply.text_size + 1u);
    *entry = (struct hostent){at->name, at->aliases, family, (int)size, at->addresses};
    return 0;
}

HOOK struct hostent *gethostbyaddr(const void *address, socklen_t size, int family) {
    static struct hostent entry; /* as libc's: the next call's result takes its place */
    static struct pointed_at room;
    struct hostent *(*real)(const void *, socklen_t, int) = next("gethostbyaddr");
    if (app_entry(address, size, family, &entry, (char *)&room, sizeof room) == 0) return &entry;
    return real ? real(address, size, family) : 0;
}

HOOK int gethostbyaddr_r(const void *address, socklen_t size, int family, struct hostent *entry, char *buffer,
                         size_t room, struct hostent **result, int *error) {
    int (*real)(const void *, socklen_t, int, struct hostent *, char *, size_t, struct hostent **, int *) =
        next("gethostbyaddr_r");
    int failed = app_entry(address, size, family, entry, buffer, room);
    if (failed == UNKNOWN) return real ? real(address, size, family, entry, buffer, room, result, error) : -1;
    *result = failed ? 0 : entry;
    *error = failed ? NETDB_INTERNAL : NETDB_SUCCESS;
    return failed;
}
