#include "settings.h"

#include <errno.h>
#include <fcntl.h>

#include "sys.h"

enum { KEPT = 4, PRELOAD = 0, SOCKET = 1, APP = 2, VALUE_SIZE = AS_PRELOAD_SIZE / 2 };

/* "NAME=value" of what each exec must keep; empty: was not set. */
static char kept[KEPT][VALUE_SIZE];
static const char *const kept_names[KEPT] = {"LD_PRELOAD=", "APPSWITCH_SOCKET=", "APPSWITCH_APP=", "APPSWITCH_TRACER="};
static char described[AS_TEXT_SIZE];
static size_t described_size;
static struct settings settings;
static int ready;

static char *append(char *at, const char *end, const char *text) {
    while (*text && at < end - 1) *at++ = *text++;
    *at = 0;
    return at;
}

static unsigned hex_value(char c) {
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10) & 15; /* whatever it is */
}

/* APPSWITCH_APP: a token in hexadecimal, or "netns:" and the namespace's cookie where that is the identity. */
static void read_app(const char *hex) {
    uint64_t netns = 0;
    settings.in_namespace = starts_with(hex, "netns:");
    for (hex += settings.in_namespace ? 6 : 0; settings.in_namespace && *hex; hex++)
        netns = netns << 4 | hex_value(*hex);
    settings.netns = netns;
    if (as_strlen(hex) != 2 * AS_TOKEN_SIZE) return;
    for (int i = 0; i < AS_TOKEN_SIZE; i++)
        settings.token[i] = (uint8_t)(hex_value(hex[2 * i]) << 4 | hex_value(hex[2 * i + 1]));
}

static void read_variable(const char *entry) {
    for (int i = 0; i < KEPT; i++)
        if (starts_with(entry, kept_names[i])) append(kept[i], kept[i] + VALUE_SIZE, entry);
    if (starts_with(entry, "APPSWITCH_NAME=") || starts_with(entry, "APPSWITCH_IP=") ||
        starts_with(entry, "APPSWITCH_TAGS=") || starts_with(entry, "APPSWITCH_TCP=") ||
        starts_with(entry, "APPSWITCH_BYPASS=")) {
        size_t size = as_strlen(entry) + 1;
        settings.too_long |= described_size + size > sizeof described;
        if (settings.too_long) return;
        memcpy(described + described_size, entry, size);
        described_size += size;
    }
}

/* As appswitch/host/paths.py: /run for root, else under XDG_RUNTIME_DIR, else in /tmp. */
static void default_socket(const char *runtime_directory) {
    char *at = settings.socket.sun_path, *end = at + sizeof settings.socket.sun_path;
    unsigned user = (unsigned)sys0(SYS_geteuid);
    settings.is_default = 1;
    if (user == 0) {
        at = append(at, end, "/run");
    } else if (*runtime_directory) {
        at = append(at, end, runtime_directory);
    } else {
        at = append(at, end, "/tmp/appswitch-");
        at = write_number(at, user);
    }
    append(at, end, "/appswitch/trap.sock");
}

/* LD_PRELOAD is a list of paths with spaces or colons between them. */
static void find_tracer(void) {
    static const char library[] = "/libappswitch.so";
    const char *end = kept[PRELOAD] + as_strlen(kept_names[PRELOAD]);
    for (const char *start = end; *end; end++) {
        if (*end == ':' || *end == ' ') start = end + 1;
        if (!starts_with(end, library)) continue;
        size_t size = (size_t)(end - start);
        if (size + sizeof "/appswitch-tracer" > sizeof settings.tracer) return;
        memcpy(settings.tracer, start, size);
        memcpy(settings.tracer + size, "/appswitch-tracer", sizeof "/appswitch-tracer");
        return;
    }
}

/* /proc/self/environ is what this program was started with, whatever it did to `environ` since. */
static void read_environment(void) {
    static char buffer[65536];
    char runtime_directory[sizeof settings.socket.sun_path] = "";
    size_t filled = 0;
    settings.socket.sun_family = AF_UNIX;
    long fd = sys4(SYS_openat, AT_FDCWD, "/proc/self/environ", O_RDONLY | O_CLOEXEC, 0);
    for (long size = 1; fd >= 0 && size > 0;) {
        size = sys3(SYS_read, fd, buffer + filled, sizeof buffer - 1 - filled);
        if (size > 0) filled += (size_t)size;
        size_t start = 0;
        for (size_t i = 0; i < filled; i++) {
            if (buffer[i]) continue;
            const char *entry = buffer + start;
            if (starts_with(entry, "XDG_RUNTIME_DIR="))
                append(runtime_directory, runtime_directory + sizeof runtime_directory, entry + 16);
            else
                read_variable(entry);
            start = i + 1;
        }
        if (start == 0 && filled == sizeof buffer - 1) filled = 0; /* one entry larger than that: not ours */
        for (size_t i = start; i < filled && start; i++) buffer[i - start] = buffer[i];
        filled -= filled >= start ? start : filled;
    }
    if (fd >= 0) sys1(SYS_close, fd);
    if (kept[SOCKET][0])
        append(settings.socket.sun_path, settings.socket.sun_path + sizeof settings.socket.sun_path,
               kept[SOCKET] + as_strlen(kept_names[SOCKET]));
    else
        default_socket(runtime_directory);
    if (kept[PRELOAD][0]) find_tracer();
    if (kept[APP][0]) read_app(kept[APP] + as_strlen(kept_names[APP]));
}

const struct settings *get_settings(void) {
    /* The constructor reads them before there are threads; an earlier call comes from another constructor. */
    if (!__atomic_load_n(&ready, __ATOMIC_ACQUIRE)) {
        read_environment();
        __atomic_store_n(&ready, 1, __ATOMIC_RELEASE);
    }
    return &settings;
}

__attribute__((constructor)) static void read_settings_early(void) {
    get_settings();
}

int is_elsewhere(int fd) {
    uint64_t ours = get_settings()->netns;
    if (!ours || netns_of(fd) == ours) return 0;
    long here = sys3(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); /* `fd` may be another app's namespace */
    int elsewhere = here >= 0 && netns_of((int)here) != ours;
    if (here >= 0) sys1(SYS_close, here);
    return elsewhere;
}

void set_token(const uint8_t token[AS_TOKEN_SIZE]) {
    static const char digits[] = "0123456789abcdef";
    char *at = append(kept[APP], kept[APP] + VALUE_SIZE, kept_names[APP]);
    for (int i = 0; i < AS_TOKEN_SIZE; i++) {
        *at++ = digits[token[i] >> 4];
        *at++ = digits[token[i] & 15];
    }
    *at = 0;
    memcpy(settings.token, token, AS_TOKEN_SIZE);
}

void set_namespace(const char *app) {
    append(append(kept[APP], kept[APP] + VALUE_SIZE, kept_names[APP]), kept[APP] + VALUE_SIZE, app);
    read_app(app);
}

size_t describe_settings(char text[AS_TEXT_SIZE]) {
    get_settings();
    memcpy(text, described, described_size);
    return described_size;
}

static void complain_once(const char *cause, const char *what, const char *hint) {
    static int said;
    char line[VALUE_SIZE], *at = line, *end = line + sizeof line;
    if (__atomic_exchange_n(&said, 1, __ATOMIC_RELAXED)) return;
    at = append(at, end, "appswitch: this program has no network: ");
    at = append(at, end, cause);
    at = append(at, end, what);
    at = append(at, end, hint);
    sys3(SYS_write, 2, line, at - line);
}

void complain_no_handler(void) {
    complain_once("no trap handler answers at ", settings.socket.sun_path,
                  "\nhint: start `appswitch serve`, or name its socket in APPSWITCH_SOCKET\n");
}

void complain_version(void) {
    complain_once("the trap handler at ", settings.socket.sun_path,
                  " is of another version than this program's libappswitch.so\nhint: start this program again\n");
}

void complain_too_long(void) {
    complain_once("the APPSWITCH_ variables", " together are too long",
                  "\nhint: look at the APPSWITCH_ variables: 1,000 bytes are enough for most\n");
}

void complain_refused(const char *reason) {
    complain_once("the trap handler says: ", reason, "\nhint: look at the APPSWITCH_ variables\n");
}

size_t kept_environment_size(char *const given[]) {
    size_t count = 0;
    while (given && given[count]) count++;
    return count + KEPT + 1;
}

static int contains(const char *text, const char *part) {
    for (; *text; text++)
        if (starts_with(text, part)) return 1;
    return 0;
}

void kept_environment(char *const given[], char *out[], char preload[AS_PRELOAD_SIZE]) {
    size_t count = 0;
    int present[KEPT] = {0};
    get_settings();
    for (; given && given[count]; count++) {
        out[count] = given[count];
        for (int i = 0; i < KEPT; i++)
            if (starts_with(given[count], kept_names[i])) present[i] = 1;
        if (starts_with(given[count], kept_names[PRELOAD]) && kept[PRELOAD][0] &&
            !contains(given[count], "libappswitch.so")) {
            char *end = preload + AS_PRELOAD_SIZE, *at = append(preload, end, kept[PRELOAD]);
            at = append(at, end, ":");
            append(at, end, given[count] + as_strlen(kept_names[PRELOAD]));
            out[count] = preload;
        }
    }
    for (int i = 0; i < KEPT; i++)
        if (kept[i][0] && !present[i]) out[count++] = kept[i];
    out[count] = 0;
}
