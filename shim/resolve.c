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
#include "name_cache.h"
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

/* The app's address as text, in `answer`, or `name` as it is. */
static const char *app_address(const char *name, struct as_answer *answer) {
    if (!name || !goes_round_dns()) return name;
    if (recall_answer(name, answer)) return answer->address;
    is_worth_asking(name); /* it is asked each time, but kept the second time */
    if (!ask_answer(name, 0, answer)) return name;
    keep_answer(name, answer);
    return answer->address[0] ? answer->address : name;
}

/* A name of ours: bare, or in our domain (appswitch/wire/dns.py). */
static int may_be_app(const char *name) {
    static const char domain[] = ".appswitch.local";
    size_t size = as_strlen(name), dots = 0;
    if (size && name[size - 1] == '.') size--;
    for (size_t i = 0; i < size; i++) {
        if (name[i] == ':') return 0;
        dots += name[i] == '.';
    }
    return size &&
           (!dots || (size >= sizeof domain && !memcmp(name + size - sizeof domain + 1, domain, sizeof domain - 1)));
}

/* Whether an address in the place of the name has the same result. */
static int is_replaceable(const struct addrinfo *hints, const struct as_answer *answer) {
    int family = AF_INET;
    for (const char *at = answer->address; *at; at++)
        if (*at == ':') family = AF_INET6;
    if (!hints) return 1;
    return !(hints->ai_flags & ~(AI_PASSIVE | AI_ADDRCONFIG | AI_NUMERICSERV)) &&
           (hints->ai_family == AF_UNSPEC || hints->ai_family == family);
}

/* What libc has found: is it what the trap handler says? It may be of /etc/hosts. */
static void keep_if_same(const char *name, const struct addrinfo *found) {
    struct as_answer answer;
    struct as_addr addr;
    if (!may_be_app(name) || !is_worth_asking(name) || !ask_answer(name, AS_TOLD, &answer)) return;
    for (; found && answer.address[0]; found = found->ai_next)
        if (read_sockaddr(found->ai_addr, found->ai_addrlen, &addr) || memcmp(addr.ip, answer.ip, sizeof addr.ip))
            answer.address[0] = 0; /* to be left alone, as one that is no app's */
    keep_answer(name, &answer);
}

typedef int addrinfo_function(const char *, const char *, const struct addrinfo *, struct addrinfo **);

HOOK int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
    struct as_answer answer;
    addrinfo_function *real = next("getaddrinfo");
    if (!real) return EAI_SYSTEM;
    if (node && recall_answer(node, &answer) && is_replaceable(hints, &answer))
        return real(answer.address, service, hints, result);
    if (!node || goes_round_dns()) return real(app_address(node, &answer), service, hints, result);
    int error = real(node, service, hints, result);
    if (!error) keep_if_same(node, *result);
    return error;
}

HOOK struct hostent *gethostbyname(const char *name) {
    struct as_answer answer;
    struct hostent *(*real)(const char *) = next("gethostbyname");
    return real ? real(app_address(name, &answer)) : 0;
}

HOOK struct hostent *gethostbyname2(const char *name, int family) {
    struct as_answer answer;
    struct hostent *(*real)(const char *, int) = next("gethostbyname2");
    return real ? real(app_address(name, &answer), family) : 0;
}

HOOK int gethostbyname_r(const char *name, struct hostent *entry, char *buffer, size_t size, struct hostent **result,
                         int *error) {
    struct as_answer answer;
    int (*real)(const char *, struct hostent *, char *, size_t, struct hostent **, int *) = next("gethostbyname_r");
    return real ? real(app_address(name, &answer), entry, buffer, size, result, error) : -1;
}

HOOK int gethostbyname2_r(const char *name, int family, struct hostent *entry, char *buffer, size_t size,
                          struct hostent **result, int *error) {
    struct as_answer answer;
    int (*real)(const char *, int, struct hostent *, char *, size_t, struct hostent **, int *) =
        next("gethostbyname2_r");
    return real ? real(app_address(name, &answer), family, entry, buffer, size, result, error) : -1;
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
