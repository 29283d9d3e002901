#include "load.h"

#include "arrivals.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define EVENTS           256
#define CONNECT_WAIT_S   10
#define TRIES_A_REQUEST  2
#define CONNECT_FAILURES 3

struct client {
    int fd; /* -1: not open */
    bool asking;
    bool watches_out;
    bool answered_once; /* on this connection */
    uint8_t tries;
    uint32_t request;
    size_t sent;
    int64_t begun_ns;
    struct answer answer;
};

struct loop {
    const struct load_settings *settings;
    struct load_result *result;
    struct client *clients;
    uint32_t *idle; /* a ring: the one that has waited longest is next */
    uint32_t idle_first, idle_count;
    uint32_t asking;
    uint32_t failures; /* connections refused one after the other */
    int epoll;
    int64_t start_ns, end_ns, give_up_ns, last_ns;
    struct arrivals arrivals;
    char *buffer;
};

enum { BUFFER_BYTES = 1 << 18 };

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

/* ---- connections ---- */

/* Blocks until the connection stands, at most CONNECT_WAIT_S. */
static int open_socket(const struct target *target)
{
    int fd = socket(target->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    struct timeval wait = {.tv_sec = CONNECT_WAIT_S};
    int one = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
        connect(fd, (const struct sockaddr *)&target->address, target->address_size) != 0 ||
        fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
        int error = -errno;
        close(fd);
        return error == -EINPROGRESS ? -ETIMEDOUT : error;
    }
    return fd;
}

static int client_open(struct loop *loop, struct client *client)
{
    int fd = open_socket(loop->settings->target);
    if (fd < 0) {
        return fd;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)(client - loop->clients)};
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    client->fd = fd;
    client->answered_once = client->watches_out = false;
    return 0;
}

static void client_close(struct client *client)
{
    if (client->fd >= 0) {
        close(client->fd);
        client->fd = -1;
    }
}

static void watch_out(struct loop *loop, struct client *client, bool out)
{
    if (client->watches_out != out) {
        struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0),
                                    .data.u32 = (uint32_t)(client - loop->clients)};
        epoll_ctl(loop->epoll, EPOLL_CTL_MOD, client->fd, &event);
        client->watches_out = out;
    }
}

static void push_idle(struct loop *loop, const struct client *client)
{
    uint32_t clients = loop->settings->clients;
    loop->idle[(loop->idle_first + loop->idle_count++) % clients] = (uint32_t)(client -
                                                                               loop->clients);
}

static struct client *pop_idle(struct loop *loop)
{
    struct client *client = &loop->clients[loop->idle[loop->idle_first]];
    loop->idle_first = (loop->idle_first + 1) % loop->settings->clients;
    loop->idle_count--;
    return client;
}

/* ---- a request ---- */

static void client_send(struct loop *loop, struct client *client)
{
    const struct target_request *request = &loop->settings->requests[client->request];
    while (client->sent < request->size) {
        ssize_t size = send(client->fd, request->bytes + client->sent, request->size - client->sent,
                            MSG_NOSIGNAL);
        if (size < 0) {
            /* Whatever is wrong with it shows when it is read from. */
            watch_out(loop, client, errno == EAGAIN);
            return;
        }
        client->sent += (size_t)size;
        loop->result->bytes_out += (uint64_t)size;
    }
    watch_out(loop, client, false);
}

static void client_try(struct loop *loop, struct client *client)
{
    client->tries++;
    client->sent = 0;
    answer_begin(&client->answer, loop->settings->requests[client->request].expected);
    client_send(loop, client);
}

static void client_ask(struct loop *loop, struct client *client, int64_t begun_ns)
{
    client->request = (uint32_t)(loop->result->sent++ % loop->settings->request_count);
    client->begun_ns = begun_ns;
    client->asking = true;
    client->tries = 0;
    loop->asking++;
    client_try(loop, client);
}

static void count_answer(struct loop *loop, const struct client *client, int64_t now)
{
    struct load_result *result = loop->result;
    const struct answer *answer = &client->answer;
    bool right = answer->status == 200 && !answer->wrong;
    result->answers++;
    result->statuses[answer->status]++;
    result->right += right;
    result->wrong += answer->status == 200 && answer->wrong;
    if (right && now <= loop->end_ns) {
        if (result->in_time++ == 0)
            result->first_ns = now - loop->start_ns;
        result->last_ns = now - loop->start_ns;
    }
    loop->last_ns = now;
    histogram_record(&result->latency_ns, now - client->begun_ns);
}

/* The connection has ended, or is of no use. */
static void client_reopen(struct loop *loop, struct client *client)
{
    client_close(client);
    loop->result->reconnects++;
    if (client_open(loop, client) != 0) {
        loop->failures++;
        return;
    }
    loop->failures = 0;
}

static void client_rest(struct loop *loop, struct client *client)
{
    if (client->asking) {
        client->asking = false;
        loop->asking--;
        push_idle(loop, client);
    }
}

/* A server may close a connection that has been idle just when a request is on its way: such a
 * request is sent once more, as every HTTP client does; its clock goes on. */
static void client_lost(struct loop *loop, struct client *client)
{
    bool again = client->asking && client->answered_once && client->answer.head_bytes == 0 &&
                 client->answer.line_bytes == 0 && client->tries < TRIES_A_REQUEST;
    client_reopen(loop, client);
    if (!client->asking) {
        return;
    }
    if (again && client->fd >= 0) {
        client_try(loop, client);
        return;
    }
    loop->result->broken++;
    client_rest(loop, client);
}

static void client_receive(struct loop *loop, struct client *client)
{
    ssize_t size = recv(client->fd, loop->buffer, BUFFER_BYTES, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (size <= 0 || !client->asking) {
        client_lost(loop, client);
        return;
    }
    loop->result->bytes_in += (uint64_t)size;
    enum answer_state state = answer_feed(&client->answer, loop->buffer, (size_t)size);
    if (state == ANSWER_WHOLE) {
        count_answer(loop, client, now_ns());
        client->answered_once = true;
    } else if (state == ANSWER_MALFORMED) {
        loop->result->malformed++;
    } else {
        return;
    }
    client_rest(loop, client);
    if (state == ANSWER_MALFORMED || client->answer.closes ||
        client->sent < loop->settings->requests[client->request].size) {
        client_reopen(loop, client);
    }
}

/* ---- the loop ---- */

static bool may_begin(const struct loop *loop, int64_t now)
{
    const struct load_settings *s = loop->settings;
    if (loop->result->sent >= s->count || loop->failures >= CONNECT_FAILURES) {
        return false;
    }
    return s->per_second > 0 ? loop->start_ns + arrivals_due_ns(&loop->arrivals) < loop->end_ns
                             : now < loop->end_ns;
}

static void begin_due(struct loop *loop, int64_t now)
{
    while (loop->idle_count > 0 && may_begin(loop, now)) {
        int64_t begun_ns = now;
        if (loop->settings->per_second > 0) {
            begun_ns = loop->start_ns + arrivals_due_ns(&loop->arrivals);
            if (begun_ns > now) {
                return;
            }
            arrivals_advance(&loop->arrivals);
        }
        struct client *client = pop_idle(loop);
        if (client->fd < 0) {
            client_reopen(loop, client);
        }
        client_ask(loop, client, begun_ns);
        now = now_ns();
    }
}

static void wait_for_events(struct loop *loop, int64_t now)
{
    int64_t until = loop->give_up_ns;
    if (loop->settings->per_second > 0 && loop->idle_count > 0 && may_begin(loop, now)) {
        until = loop->start_ns + arrivals_due_ns(&loop->arrivals);
    }
    int64_t wait_ns = until > now ? until - now : 0;
    struct timespec wait = {.tv_sec = wait_ns / 1000000000, .tv_nsec = wait_ns % 1000000000};
    struct epoll_event events[EVENTS];
    int count = epoll_pwait2(loop->epoll, events, EVENTS, &wait, NULL);
    for (int i = 0; i < count; i++) {
        struct client *client = &loop->clients[events[i].data.u32];
        if (client->asking && (events[i].events & EPOLLOUT) != 0) {
            client_send(loop, client);
        }
        if ((events[i].events & ~(uint32_t)EPOLLOUT) != 0) {
            client_receive(loop, client);
        }
    }
}

/* What was due and is not answered: it has waited so long at least. */
static void count_unanswered(struct loop *loop)
{
    struct load_result *result = loop->result;
    int64_t now = now_ns();
    for (uint32_t i = 0; i < loop->settings->clients; i++) {
        if (loop->clients[i].asking) {
            result->unanswered++;
            histogram_record(&result->latency_ns, now - loop->clients[i].begun_ns);
        }
    }
    if (loop->settings->per_second <= 0) {
        return;
    }
    for (; result->sent < loop->settings->count; arrivals_advance(&loop->arrivals)) {
        int64_t due = loop->start_ns + arrivals_due_ns(&loop->arrivals);
        if (due >= loop->end_ns || due >= now) {
            return;
        }
        result->sent++;
        result->unanswered++;
        histogram_record(&result->latency_ns, now - due);
    }
}

static void run_loop(struct loop *loop)
{
    const struct load_settings *s = loop->settings;
    double cpu = cpu_seconds();
    loop->start_ns = loop->last_ns = now_ns();
    loop->end_ns = loop->start_ns + (int64_t)(s->seconds * 1e9);
    loop->give_up_ns = loop->end_ns + (int64_t)(s->timeout_s * 1e9);
    if (s->per_second > 0) {
        arrivals_begin(&loop->arrivals, s->per_second, s->poisson, s->seed);
    }
    int64_t now = loop->start_ns;
    while (now < loop->give_up_ns) {
        begin_due(loop, now);
        if (loop->asking == 0 && !may_begin(loop, now)) {
            break;
        }
        wait_for_events(loop, now);
        now = now_ns();
    }
    count_unanswered(loop);
    bool counted = loop->result->sent >= s->count && loop->last_ns < loop->end_ns;
    loop->result->seconds = counted ? (double)(loop->last_ns - loop->start_ns) * 1e-9 : s->seconds;
    loop->result->cpu_seconds = cpu_seconds() - cpu;
}

/* ---- begin and end ---- */

static int allow_descriptors(uint32_t clients)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)clients + 32;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return -errno;
    }
    if (limit.rlim_cur >= wanted) {
        return 0;
    }
    limit.rlim_cur = wanted;
    return limit.rlim_max >= wanted && setrlimit(RLIMIT_NOFILE, &limit) == 0 ? 0 : -EMFILE;
}

static int connect_all(struct loop *loop)
{
    assert(loop->clients != NULL && loop->idle != NULL);
    int64_t begun = now_ns();
    for (uint32_t i = 0; i < loop->settings->clients; i++) {
        int error = client_open(loop, &loop->clients[i]);
        if (error != 0) {
            return error;
        }
        push_idle(loop, &loop->clients[i]);
    }
    loop->result->connect_s = (double)(now_ns() - begun) * 1e-9;
    return 0;
}

static void close_all(struct loop *loop)
{
    for (uint32_t i = 0; loop->clients != NULL && i < loop->settings->clients; i++) {
        client_close(&loop->clients[i]);
    }
    if (loop->epoll >= 0) {
        close(loop->epoll);
    }
    free(loop->clients);
    free(loop->idle);
    free(loop->buffer);
}

static int make_loop(struct loop *loop)
{
    uint32_t clients = loop->settings->clients;
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll < 0) {
        return -errno;
    }
    loop->clients = (struct client *)calloc(clients, sizeof *loop->clients);
    loop->idle = (uint32_t *)calloc(clients, sizeof *loop->idle);
    loop->buffer = (char *)malloc(BUFFER_BYTES);
    if (loop->clients == NULL || loop->idle == NULL || loop->buffer == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < clients; i++) {
        loop->clients[i].fd = -1;
    }
    return 0;
}

int load_run(const struct load_settings *settings, struct load_result *out, char *reason,
             size_t reason_size)
{
    assert(settings->clients > 0 && settings->clients <= LOAD_CLIENTS_MAX);
    assert(settings->request_count > 0 && settings->request_count <= LOAD_REQUESTS_MAX);
    struct loop loop = {.settings = settings, .result = out, .epoll = -1};
    memset(out, 0, sizeof *out);
    const char *what = "allow so many connections";
    int error = allow_descriptors(settings->clients);
    if (error == 0) {
        what = "make ready";
        error = make_loop(&loop);
    }
    if (error == 0) {
        what = "connect";
        error = connect_all(&loop);
    }
    if (error == 0) {
        /* Else the kernel may wake an open loop 50 us late. */
        prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
        run_loop(&loop);
    } else {
        snprintf(reason, reason_size, "cannot %s: %s", what, strerror(-error));
    }
    close_all(&loop);
    return error;
}
