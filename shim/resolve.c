/* Host names where there is no namespace (spawn --no-netns, LD_PRELOAD alone): libc's resolver would ask the host's
 * name servers, which know no app. So a name is asked of the trap handler first; if an app has it, libc's own function
 * is called with the address in its place, and makes the result as it always does. In a namespace nothing is done: the
 * DNS socket there answers (DESIGN 3.6).
 */
#define _GNU_SOURCE
#include <netdb.h>

#include "channel.h"
#include "hooks.h"
#include "settings.h"
#include "sys.h"

extern void *dlsym(void *handle, const char *name) __attribute__((weak));

static void *next(const char *name) {
    return dlsym ? dlsym((void *)-1L /* RTLD_NEXT */, name) : 0;
}

/* The app's address as text, in `reply`, or `name` as it is. */
static const char *app_address(const char *name, struct as_reply *reply) {
    struct as_request request;
    struct passed passed;
    size_t size = name ? as_strlen(name) : 0;
    if (!size || size >= AS_TEXT_SIZE || get_settings()->in_namespace) return name;
    new_request(&request, AS_RESOLVE);
    memcpy(request.text, name, size);
    request.text_size = (uint16_t)size;
    if (ask(&request, reply, &passed) < 0) return name;
    close_passed(&passed, 0);
    if (!reply->text_size || reply->text_size >= AS_TEXT_SIZE) return name;
    reply->text[reply->text_size] = 0;
    return reply->text;
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
