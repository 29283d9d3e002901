/*
 * A streaming model for tests. The first word of a request says what its stream is like:
 *
 *     count N     N items {"i":0}, {"i":1}, ...
 *     wide N      N items of 30,000 bytes, and a line in the log for every tenth
 *     hold        one item; then nothing, with signs of progress, until its client leaves
 *     drip        an item every 20 ms until its client leaves
 *     crash N     N items, and when gate.h lets it, SIGSEGV
 *     fail N      N items, then predict fails
 *     refuse N    N items, then the model refuses
 *     lines       one item of several lines
 *     huge        an item that is larger than the ring
 *     later N     N items from a timer, while the request is pending
 */
#include "tests/plugins/gate.h"
#include "unetserve/model.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define STEP_MS 5
#define WIDE    30000

static int gate = -1;

static int describe(const struct unetserve_setup *setup, struct unetserve_interface *interface,
                    char *error, size_t error_size)
{
    (void)setup, (void)error, (void)error_size;
    *interface = (struct unetserve_interface){
        .name = "river",
        .version = "1",
        .input_kind = UNETSERVE_DOCUMENT,
        .output_kind = UNETSERVE_DOCUMENT,
        .flags = UNETSERVE_STREAMS,
        .size_multiple = 1,
        .max_batch = 1,
    };
    return 0;
}

static int setup(const struct unetserve_setup *options, void **model,
                 struct unetserve_interface *interface, char *error, size_t error_size)
{
    *model = (void *)options->host;
    gate = gate_open(options->path);
    return describe(options, interface, error, error_size);
}

static bool says(const struct unetserve_item *item, const char *word, unsigned *number)
{
    char text[64] = "";
    size_t size = strlen(word);
    if (item->input_bytes < size || memcmp(item->input, word, size) != 0)
        return false;
    size_t rest = item->input_bytes - size;
    memcpy(text, (const char *)item->input + size, rest < sizeof text - 1 ? rest : sizeof text - 1);
    *number = (unsigned)strtoul(text, NULL, 10);
    return true;
}

static void wait_ms(const struct unetserve_host *host, unsigned ms)
{
    for (unsigned done = 0; done < ms; done += STEP_MS) {
        nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
        host->tick(host);
    }
}

static int emit_number(const struct unetserve_host *host, struct unetserve_item *item, unsigned i)
{
    char text[32];
    int size = snprintf(text, sizeof text, "{\"i\":%u}", i);
    return host->emit(host, item, text, (size_t)size);
}

static int count(const struct unetserve_host *host, struct unetserve_item *item, unsigned number)
{
    int error = 0;
    for (unsigned i = 0; i < number && !error; i++)
        error = emit_number(host, item, i);
    return error;
}

static int wide(const struct unetserve_host *host, struct unetserve_item *item, unsigned number)
{
    static char text[WIDE];
    int error = 0;
    for (unsigned i = 0; i < number && !error; i++) {
        memset(text, ' ', sizeof text);
        text[0] = '[';
        text[sizeof text - 2] = (char)('0' + i % 10);
        text[sizeof text - 1] = ']';
        error = host->emit(host, item, text, sizeof text);
        if (i % 10 == 0)
            host->log(host, 6, "wide: %u made", i);
    }
    host->log(host, 6, "wide: ends with %d", error);
    return error;
}

static int hold(const struct unetserve_host *host, struct unetserve_item *item)
{
    int error = emit_number(host, item, 0);
    while (!error && !host->cancelled(host, item))
        wait_ms(host, STEP_MS);
    host->log(host, 6, "hold: nobody waits");
    return error ? error : -ECANCELED;
}

static int drip(const struct unetserve_host *host, struct unetserve_item *item)
{
    int error = 0;
    for (unsigned i = 0; !error; i++) {
        error = emit_number(host, item, i);
        wait_ms(host, 20);
    }
    host->log(host, 6, "drip: %s", error == -ECANCELED ? "nobody waits" : "failed");
    return error;
}

static int refuse(struct unetserve_item *item)
{
    static const char document[] = "{\"detail\":\"no more\"}";
    item->status = 422;
    item->output_bytes = sizeof document - 1;
    memcpy(item->output, document, item->output_bytes);
    return 0;
}

static int lines(const struct unetserve_host *host, struct unetserve_item *item)
{
    static const char text[] = "{\n  \"a\": [1,\r\n 2]\n}\n";
    return host->emit(host, item, text, sizeof text - 1);
}

static int huge(const struct unetserve_host *host, struct unetserve_item *item)
{
    static char text[4 << 20];
    memset(text, '1', sizeof text);
    int error = host->emit(host, item, text, sizeof text);
    return error == -EMSGSIZE ? refuse(item) : -EINVAL;
}

/* ---- pending ---- */

struct later {
    const struct unetserve_host *host;
    struct unetserve_item *item;
    unsigned made, number;
    int timer;
};

static void later_end(struct later *later, int error)
{
    struct unetserve_item *item = later->item;
    const struct unetserve_host *host = later->host;
    host->unwatch(host, later->timer);
    close(later->timer);
    free(later);
    host->complete(host, item, error);
}

static void on_later(void *opaque, int fd, uint32_t events)
{
    (void)events;
    struct later *later = opaque;
    uint64_t times;
    if (read(fd, &times, sizeof times) != sizeof times)
        return;
    int error = later->made < later->number ? emit_number(later->host, later->item, later->made)
                                            : 0;
    if (error == -EAGAIN)
        return;
    if (error || later->made++ == later->number)
        later_end(later, error);
}

static int begin_later(const struct unetserve_host *host, struct unetserve_item *item,
                       unsigned number)
{
    struct later *later = malloc(sizeof *later);
    if (!later)
        return -ENOMEM;
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    *later = (struct later){host, item, 0, number, timer};
    const struct itimerspec often = {{0, 1000000}, {0, 1000000}};
    if (timer < 0 || timerfd_settime(timer, 0, &often, NULL) ||
        host->watch(host, timer, EPOLLIN, on_later, later))
        abort();
    /* cppcheck-suppress memleak ; the watch has it, and later_end frees it */
    return UNETSERVE_PENDING;
}

static int flow(const struct unetserve_host *host, struct unetserve_item *item)
{
    unsigned number;
    int error;
    if (says(item, "count", &number))
        return count(host, item, number);
    if (says(item, "wide", &number))
        return wide(host, item, number);
    if (says(item, "hold", &number))
        return hold(host, item);
    if (says(item, "drip", &number))
        return drip(host, item);
    if (says(item, "lines", &number))
        return lines(host, item);
    if (says(item, "huge", &number))
        return huge(host, item);
    if (says(item, "later", &number))
        return begin_later(host, item, number);
    if (says(item, "crash", &number)) {
        error = count(host, item, number);
        while (gate_holds(gate, 0))
            wait_ms(host, STEP_MS);
        raise(SIGSEGV);
        return error;
    }
    if (says(item, "fail", &number)) {
        error = count(host, item, number);
        return error ? error : -EINVAL;
    }
    if (says(item, "refuse", &number)) {
        error = count(host, item, number);
        return error ? error : refuse(item);
    }
    return refuse(item);
}

static int predict(void *model, struct unetserve_item *const *items, size_t item_count)
{
    return item_count == 1 ? flow(model, items[0]) : -EINVAL;
}

static void teardown(void *model)
{
    (void)model;
}

const struct unetserve_model_ops *unetserve_model(void)
{
    static const struct unetserve_model_ops ops = {
        .abi = UNETSERVE_MODEL_ABI,
        .size = sizeof ops,
        .name = "river",
        .describe = describe,
        .setup = setup,
        .predict = predict,
        .teardown = teardown,
    };
    return &ops;
}
