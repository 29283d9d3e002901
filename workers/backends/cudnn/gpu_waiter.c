#include "gpu_waiter.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* One message through the pipe: smaller than what a pipe takes whole. */
struct order {
    CUevent event;
    uint64_t mark;
};

static void *wait_for_orders(void *opaque)
{
    struct gpu_waiter *waiter = (struct gpu_waiter *)opaque;
    struct order order;
    (void)waiter->driver->cuCtxSetCurrent(waiter->context);
    while (read(waiter->orders[0], &order, sizeof order) == (ssize_t)sizeof order) {
        /* Failed or done: there is something to be told in either case. */
        (void)waiter->driver->cuEventSynchronize(order.event);
        atomic_store(&waiter->reached, order.mark);
        (void)!write(waiter->told, &(uint64_t){1}, sizeof(uint64_t));
    }
    return NULL;
}

/* Signals are for the thread that runs jobs. */
static int start_thread(struct gpu_waiter *waiter)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&waiter->thread, NULL, wait_for_orders, waiter);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -error;
}

int gpu_waiter_open(const struct gpu_device *device, struct gpu_waiter *out)
{
    if (pipe2(out->orders, O_CLOEXEC) != 0) {
        return -errno;
    }
    out->told = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int error = out->told < 0 ? -errno : 0;
    out->driver = device->driver;
    out->context = device->context;
    if (error == 0) {
        error = start_thread(out);
    }
    if (error == 0) {
        return 0;
    }
    out->driver = NULL;
    close(out->orders[0]);
    close(out->orders[1]);
    if (out->told >= 0) {
        close(out->told);
    }
    return error;
}

void gpu_waiter_close(struct gpu_waiter *waiter)
{
    if (waiter->driver == NULL) {
        return;
    }
    close(waiter->orders[1]);
    pthread_join(waiter->thread, NULL);
    close(waiter->orders[0]);
    close(waiter->told);
    waiter->driver = NULL;
}

int gpu_waiter_expect(struct gpu_waiter *waiter, CUevent event, uint64_t mark)
{
    struct order order = {.event = event, .mark = mark};
    ssize_t written;
    do {
        written = write(waiter->orders[1], &order, sizeof order);
    } while (written < 0 && errno == EINTR);
    return written == (ssize_t)sizeof order ? 0 : -EIO;
}

uint64_t gpu_waiter_reached(struct gpu_waiter *waiter)
{
    uint64_t count;
    (void)!read(waiter->told, &count, sizeof count);
    return atomic_load(&waiter->reached);
}
