#include "supervisor/graves.h"

#include "unetserve/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

static void settle(struct queue *queue)
{
    queue_apply_standing_rules(queue);
    seat_wake_role(queue, QUEUE_GATEWAY);
    seat_wake_role(queue, QUEUE_BROKER);
}

unsigned graves_count(const struct server *server)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < SERVER_MAX_GRAVES; i++)
        count += server->graves[i].index != 0;
    return count;
}

static struct tree_grave *grave_find_free(struct server *server)
{
    for (uint32_t i = 0; i < SERVER_MAX_GRAVES; i++)
        if (!server->graves[i].index)
            return &server->graves[i];
    return NULL;
}

static int on_grave_gone(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)source;
    (void)events;
    struct tree_grave *grave = opaque;
    struct queue *queue = &grave->server->queue;
    siginfo_t end;
    while (waitid(P_PIDFD, (id_t)fd, &end, WEXITED) && errno == EINTR)
        ;
    log_event(LOG_LEVEL_WARNING, "a condemned process is gone", log_number("pid", grave->pid));
    queue_process_leave(queue, grave->index, grave->by_fault);
    grave->gone_source = sd_event_source_disable_unref(grave->gone_source);
    close(grave->pidfd);
    *grave = (struct tree_grave){.index = 0};
    settle(queue);
    return 0;
}

void graves_take(const struct tree_seat *seat)
{
    struct server *server = seat->server;
    struct tree_grave *grave = grave_find_free(server);
    assert(grave && seat->index);
    *grave = (struct tree_grave){.server = server,
                                 .index = seat->index,
                                 .pid = seat->pid,
                                 .pidfd = fcntl(seat->pidfd, F_DUPFD_CLOEXEC, 0),
                                 .by_fault = seat->hung && !seat->stopped};
    atomic_store(&server->queue.processes[grave->index].life, QUEUE_CONDEMNED);
    if (grave->pidfd < 0 || sd_event_add_io(server->event, &grave->gone_source, grave->pidfd,
                                            EPOLLIN, on_grave_gone, grave) < 0)
        log_event(LOG_LEVEL_ERROR, "a condemned process will not be missed",
                  log_number("pid", grave->pid));
    settle(&server->queue);
}
