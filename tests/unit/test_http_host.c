/* SPDX-License-Identifier: MIT
 * test_http_host.c - how a server is reached: names and ports where nobody is, proxies, TLS,
 * several runtimes in threads. */
#include "http_server.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

static void nobody_there(void **state)
{
    struct fixture *f = *state;
    struct call call;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    char url[256];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0); /* taken, not listened on */
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/x?secret=1", ntohs(address.sin_port));
    do_call(f, &call, OPTIONS(.url = url));
    assert_failed(&call, LK_NETWORK, true, "127.0.0.1");
    assert_null(strstr(call.err.message, "secret"));
    assert_non_null(strstr(call.err.hint, "check host and port"));
    lk_http_release(call.request);

    /* A full backlog: connections get no answer. */
    int fill[8], filled = 0;
    assert_int_equal(listen(fd, 0), 0);
    for (; filled < 8; filled++) {
        fill[filled] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        assert_true(connect(fill[filled], (struct sockaddr *)&address, len) == 0 ||
                    errno == EINPROGRESS);
    }
    do_call(f, &call, OPTIONS(.url = url, .connect_ms = 300, .idle_ms = 100));
    assert_failed(&call, LK_TIMEOUT, true, "no connection to 127.0.0.1:");
    lk_http_release(call.request);
    while (filled > 0)
        close(fill[--filled]);
    close(fd);

    assert_int_equal(lk_caps_allow(f->caps, LK_CAP_NET, "nowhere.invalid", NULL), 0);
    do_call(f, &call, OPTIONS(.url = "http://nowhere.invalid/", .connect_ms = 20000));
    assert_failed(&call, LK_NETWORK, true, "nowhere.invalid");
    lk_http_release(call.request);
}

/* --- what the environment says: asked of a child, because a program must not change its own --- */

/* argv: url, text that the body or the error must hold, proxy, resolve ("" = not given). */
static int run_probe(char **argv)
{
    struct fixture f = {.loop = lk_loop_new(NULL), .caps = lk_caps_new(NULL)};
    struct call call;
    const char *resolve = argv[3];
    struct lk_http_options options = {.url = argv[0],
                                      .connect_ms = 2000,
                                      .proxy = argv[2][0] != '\0' ? argv[2] : NULL,
                                      .resolve = &resolve,
                                      .resolve_count = argv[3][0] != '\0',
                                      .http2 = -1};
    f.http = lk_http_new(f.loop, f.caps, NULL);
    if (f.http == NULL || lk_caps_allow(f.caps, LK_CAP_NET, "*", NULL) < 0)
        return 2;
    do_call(&f, &call, &options);
    const char *text = call.response == NULL         ? call.err.message
                       : call.response->body_len > 0 ? call.response->body
                                                     : "";
    bool right = strstr(text, argv[1]) != NULL;
    if (!right)
        fprintf(stderr, "%s: \"%s\" is not in: %s\n", argv[0], argv[1], text);
    lk_http_release(call.request);
    lk_http_free(f.http);
    lk_loop_free(f.loop);
    lk_caps_free(f.caps);
    return right ? 0 : 1;
}

/* Runs this program as a probe, with one variable added to the environment. */
static void probe(const char *name, const char *value, const char *url, const char *expected,
                  const char *proxy, const char *resolve)
{
    char variable[256];
    snprintf(variable, sizeof(variable), "%s=%s", name, value);
    const char *argv[] = {"test_http_host", "probe", url, expected, proxy, resolve, NULL};
    size_t count = 0;
    while (environ[count] != NULL)
        count++;
    const char **env = calloc(count + 2, sizeof(*env));
    assert_non_null(env);
    size_t used = 0;
    for (size_t i = 0; i < count; i++)
        if (strncmp(environ[i], "CURL_CA_", 8) != 0 && strncmp(environ[i], "SSL_CERT_", 9) != 0)
            env[used++] = environ[i];
    env[used] = variable;
    char program[512];
    ssize_t len = readlink("/proc/self/exe", program, sizeof(program) - 1);
    assert_true(len > 0);
    program[len] = '\0';
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execve(program, (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    free(env);
}

static void proxies(void **state)
{
    struct fixture *f = *state;
    char url[256];
    start_server(&f->server, "[{\"times\": 0, \"body\": \"direct\"}]", NULL, NULL);
    start_server(&f->other, "[{\"times\": 0, \"body\": \"by proxy\"}]", NULL, NULL);
    at(&f->server, "/x", url);
    probe("http_proxy", f->other.url, url, "by proxy", "", "");
    probe("http_proxy", f->other.url, url, "by proxy", "env", "");
    probe("http_proxy", f->other.url, url, "direct", "none", "");
    probe("no_proxy", "*", url, "by proxy", f->other.url, "");
    assert_int_equal(count_in_log(&f->other, "\"path\": \"http://127.0.0.1:"), 3);
    assert_int_equal(count_in_log(&f->server, "\n"), 1);
}

static void no_proxy_for_metadata(void **state)
{
    struct fixture *f = *state;
    char url[256], map[256];
    start_server(&f->server, "[{\"times\": 0, \"body\": \"direct\"}]", NULL, NULL);
    start_server(&f->other, "[{\"times\": 0, \"body\": \"by proxy\"}]", NULL, NULL);
    snprintf(url, sizeof(url), "http://METADATA.google.internal:%d/", f->server.port);
    snprintf(map, sizeof(map), "metadata.google.internal:%d:127.0.0.1", f->server.port);
    probe("http_proxy", f->other.url, url, "direct", "", map);
    probe("http_proxy", f->other.url, url, "direct", f->other.url, map);
    /* Nobody is there, or a cloud's own service; the proxy must not be asked in any spelling. */
    static const char *const addresses[] = {"http://169.254.169.254/x", "http://0xa9fea9fe/x",
                                            "http://169.254.170.2/x", "http://169.254.170.23/x",
                                            "http://[fd00:ec2:0::254]/x"};
    for (int i = 0; i < 5; i++)
        probe("http_proxy", f->other.url, addresses[i], "", i == 0 ? f->other.url : "", "");
    assert_int_equal(count_in_log(&f->other, "\n"), 0);
}

/* --- TLS --- */

/* Runs a shell command, fixed here, in a directory. */
static void in_directory(const char *directory, const char *command)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        char script[512];
        snprintf(script, sizeof(script), "cd \"$0\" && %s", command);
        if (dup2(null, 2) == 2 && dup2(null, 1) == 1)
            execl("/bin/sh", "sh", "-c", script, directory, NULL);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void make_certificates(const char *dir)
{
    in_directory(dir, "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
                      "-keyout ca.key -out ca.pem"
                      " -days 2 -subj '/CN=lunark test CA'");
    in_directory(dir, "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "
                      "host.key -out host.csr"
                      " -subj '/CN=127.0.0.1'");
    in_directory(dir, "echo subjectAltName=IP:127.0.0.1 > ext && openssl x509 -req -in host.csr "
                      "-CA ca.pem -CAkey ca.key"
                      " -CAcreateserial -out host.pem -days 2 -extfile ext");
}

static void tls(void **state)
{
    struct fixture *f = *state;
    struct call call;
    char url[256], dir[] = "/tmp/lunark-tls.XXXXXX", ca[64], cert[64], key[64];
    assert_non_null(mkdtemp(dir));
    make_certificates(dir);
    snprintf(ca, sizeof(ca), "%s/ca.pem", dir);
    snprintf(cert, sizeof(cert), "%s/host.pem", dir);
    snprintf(key, sizeof(key), "%s/host.key", dir);
    start_server(&f->server,
                 "[{\"match\": {\"path\": \"break\"}, \"times\": 0, \"read\": 1000, \"drop\": "
                 "\"reset\"},"
                 " {\"match\": {\"path\": \"found\"}, \"times\": 0, \"body\": \"found\"},"
                 " {\"times\": 0, \"body\": {\"echo\": true}}]",
                 cert, key);
    assert_int_equal(lk_caps_allow(f->caps, LK_CAP_NET, "localhost", NULL), 0);

    for (int i = 0; i < 2; i++) { /* the second one on the connection of the first */
        do_call(f, &call,
                OPTIONS(.method = "PUT", .url = at(&f->server, "/", url), .body = "tls",
                        .body_len = 3, .ca_file = ca));
        assert_non_null(call.response);
        assert_memory_equal(call.response->body, "tls", 3);
        lk_http_release(call.request);
    }
    assert_int_equal(count_in_log(&f->server, "\"connection\": 1"), 2);
    /* Writing on after a reset must not end the process with SIGPIPE. */
    char *body = calloc(1, 8 << 20);
    assert_non_null(body);
    do_call(f, &call,
            OPTIONS(.method = "PUT", .url = at(&f->server, "/break", url), .body = body,
                    .body_len = 8 << 20, .ca_file = ca));
    assert_failed(&call, LK_NETWORK, true, "/break");
    lk_http_release(call.request);
    free(body);
    probe("LUNARK_TEST", "", at(&f->server, "/", url), "certificate", "", "");
    probe("CURL_CA_BUNDLE", ca, at(&f->server, "/found", url), "found", "", "");
    probe("SSL_CERT_FILE", ca, at(&f->server, "/found", url), "found", "", "");
    snprintf(url, sizeof(url), "https://localhost:%d/", f->server.port);
    do_call(f, &call, OPTIONS(.url = url, .ca_file = ca));
    assert_failed(&call, LK_NETWORK, false, "localhost");
    assert_non_null(strstr(call.err.hint, "ca_file"));
    lk_http_release(call.request);
    do_call(f, &call, OPTIONS(.url = url, .insecure = true));
    assert_non_null(call.response);
    lk_http_release(call.request);
    do_call(f, &call, OPTIONS(.url = at(&f->server, "/", url), .ca_file = "/nonexistent/ca.pem"));
    assert_failed(&call, LK_NETWORK, false, "/nonexistent/ca.pem");
    lk_http_release(call.request);
    in_directory(dir, "rm -f ca.key ca.pem ca.srl host.key host.csr host.pem ext");
    assert_int_equal(rmdir(dir), 0);
}

/* --- several runtimes, each in its thread: no assertions off the main one --- */

static void *one_runtime(void *arg)
{
    struct fixture f = {.server = *(struct server *)arg};
    struct call call;
    char url[256];
    f.loop = lk_loop_new(NULL);
    f.caps = lk_caps_new(NULL);
    f.http = lk_http_new(f.loop, f.caps, NULL);
    if (f.http == NULL || lk_caps_allow(f.caps, LK_CAP_NET, "*", NULL) < 0)
        return arg;
    int right = 0;
    for (int i = 0; i < 20; i++) {
        struct lk_http_options options = {.url = at(&f.server, "/t", url), .http2 = -1};
        do_call(&f, &call, &options);
        right += call.response != NULL && call.response->body_len == 2;
        lk_http_release(call.request);
    }
    lk_http_free(f.http);
    lk_loop_free(f.loop);
    lk_caps_free(f.caps);
    return right == 20 ? NULL : arg;
}

static void runtimes_in_threads(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[4];
    void *failed;
    start_server(&f->server, "[{\"times\": 0, \"body\": \"ok\"}]", NULL, NULL);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, one_runtime, &f->server), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(int argc, char **argv)
{
    if (argc == 6 && strcmp(argv[1], "probe") == 0)
        return run_probe(argv + 2);
    const struct CMUnitTest tests[] = {
        TEST(nobody_there),        TEST(proxies), TEST(no_proxy_for_metadata), TEST(tls),
        TEST(runtimes_in_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
