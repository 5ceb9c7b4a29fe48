/* execvp and its kin: the search in PATH, as exec(3) says and libc does it. */
#include <limits.h>
#include <spawn.h>
#include <sys/stat.h>

#include "test.h"

extern char **environ;

static char directory[] = "/tmp/search-XXXXXX";

static void make(const char *name, const char *content, int mode) {
    char path[200];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int fd = OK(open(path, O_WRONLY | O_CREAT | O_TRUNC, 0700));
    SAME(write(fd, content, strlen(content)), strlen(content));
    OK(fchmod(fd, (mode_t)mode));
    close(fd);
}

static void make_directory(const char *name) {
    char path[200];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    OK(mkdir(path, 0700));
}

static void set_path(const char *first, const char *second) {
    char path[500];
    snprintf(path, sizeof path, "%s%s%s:%s%s%s:/usr/bin:/bin", *first == '/' ? "" : directory, *first == '/' ? "" : "/",
             first, *second == '/' ? "" : directory, *second == '/' ? "" : "/", second);
    OK(setenv("PATH", path, 1));
}

/* What `file one two` says, or why it doesn't start. */
static void tell_run(const char *file) {
    int ends[2];
    char text[4096] = "";
    size_t filled = 0;
    char *args[] = {(char *)file, "one", "two words", 0};
    OK(pipe(ends));
    fflush(stdout);
    pid_t child = OK(fork());
    if (child == 0) {
        dup2(ends[1], 1);
        execvp(file, args);
        dprintf(1, "errno %d", errno);
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t size; (size = read(ends[0], text + filled, sizeof text - 1 - filled)) > 0;) filled += (size_t)size;
    close(ends[0]);
    OK(waitpid(child, 0, 0));
    for (char *at = text; (at = strstr(at, directory));) memcpy(at, "/tmp/search-DIRECT", strlen(directory));
    for (char *line = strtok(text, "\n"); line; line = strtok(0, "\n")) say("%s", line);
    pid_t spawned;
    SAME(posix_spawnp(&spawned, "true", 0, 0, (char *[]){"true", 0}, environ), 0);
    end_well(spawned);
}

static void remove_all(void) {
    if (fork() == 0) execl("/bin/rm", "rm", "-r", directory, (char *)0);
    wait(0);
}

static void begin(void) {
    CHECK(mkdtemp(directory));
    atexit(remove_all);
    make_directory("a");
    make_directory("b");
}

static const char script[] = "#!/bin/sh\necho first \"$0\" \"$@\"\n", unmarked[] = "echo unmarked \"$0\" \"$@\"\n";

CASE(the_first_that_is_there) {
    begin();
    make("b/tool", script, 0700);
    set_path("a", "b");
    tell_run("tool");
}

CASE(one_that_may_not_be_executed_is_passed_over) {
    begin();
    make("a/tool", script, 0600);
    make("b/tool", script, 0700);
    set_path("a", "b");
    tell_run("tool");
}

CASE(one_that_may_not_be_executed_is_told) {
    begin();
    make("a/tool", script, 0600);
    set_path("a", "b");
    tell_run("tool");
}

CASE(a_directory_of_that_name) {
    begin();
    make_directory("a/tool");
    set_path("a", "b");
    tell_run("tool");
    make("b/tool", script, 0700);
    tell_run("tool");
}

CASE(none) {
    begin();
    set_path("a", "b");
    tell_run("tool-that-is-nowhere");
    tell_run("");
}

CASE(a_script_without_a_first_line) {
    begin();
    make("b/tool", unmarked, 0700);
    set_path("a", "b");
    tell_run("tool");
}

CASE(a_script_without_a_first_line_by_its_path) {
    begin();
    char path[200];
    make("b/tool", unmarked, 0700);
    snprintf(path, sizeof path, "%s/b/tool", directory);
    tell_run(path);
}

CASE(a_path_is_not_searched) {
    begin();
    make("b/tool", script, 0700);
    set_path("a", "b");
    OK(chdir(directory));
    tell_run("b/tool");
    tell_run("./b/tool");
    tell_run("a/tool");
    tell_run("b/tool/more");
}

CASE(an_empty_entry_is_here) {
    begin();
    make("tool", script, 0700);
    OK(chdir(directory));
    OK(setenv("PATH", ":/usr/bin:/bin", 1));
    tell_run("tool");
    OK(setenv("PATH", "/usr/bin::/bin", 1));
    tell_run("tool");
    OK(setenv("PATH", "/usr/bin:/bin:", 1));
    tell_run("tool");
}

CASE(entries_that_are_no_directories) {
    begin();
    make("file", "x", 0600);
    make("b/tool", script, 0700);
    set_path("file", "b");
    tell_run("tool");
    set_path("/nothing/there", "b");
    tell_run("tool");
}

CASE(no_path_at_all) {
    OK(unsetenv("PATH"));
    tell_run("true");
    tell_run("ls-that-is-nowhere");
}

CASE(a_name_that_is_too_long) {
    char name[5000];
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = 0;
    tell_run(name);
    name[300] = 0;
    tell_run(name);
}

CASE(a_bad_interpreter) {
    begin();
    make("a/tool", "#!/nothing/there\n", 0700);
    make("b/tool", script, 0700);
    set_path("a", "b");
    tell_run("tool");
}
